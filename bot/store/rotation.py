"""A rotation of the embeddings' space for each enrolment: cosines stay, the numbers do not.

Templates of one person from two enrolments, or of two services, cannot be told to be of one person
without the seeds, and a new seed renews them (ISO/IEC 24745's unlinkability and renewability). It
is not irreversible: who has the seed turns it back. It protects from nobody from whom the vault
does not: seeds are sealed under the same data key as the templates. It stays because what is stored
is rotated: to read it takes this module all the same, and to turn all of it back in place would
take every person's key at once. Knows nothing about people or where seeds are kept.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

SEED_BYTES = 32


def rotation(seed: bytes, dimension: int) -> NDArray[np.float64]:
    """An orthogonal (d, d) matrix, uniformly distributed (Haar) over seeds.

    Mezzadri, "How to generate random matrices from the classical compact groups", 2007: the QR
    decomposition of a Gaussian matrix, with R's diagonal made positive. The Gaussian numbers come
    from SHAKE256 and Box-Muller, not from numpy's generators, whose streams may change with its
    version: the same seed must give the same matrix for as long as templates are kept.

    Slow (about 20 ms where d is 512): call it in a thread.
    """
    pairs = (dimension * dimension + 1) // 2
    stream = hashlib.shake_256(b"face-matcher rotation" + seed).digest(16 * pairs)
    integers = np.frombuffer(stream, "<u8") >> np.uint64(11)
    uniform = (integers.astype(np.float64) + 0.5) * 2.0**-53  # inside (0, 1)
    radius = np.sqrt(-2 * np.log(uniform[:pairs]))
    angle = 2 * np.pi * uniform[pairs:]
    gaussian = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    matrix = gaussian[: dimension * dimension].reshape(dimension, dimension)
    orthogonal, upper = np.linalg.qr(matrix)
    return np.asarray(orthogonal * np.copysign(1.0, np.diagonal(upper)), np.float64)
