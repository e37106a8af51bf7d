// A round video: recorded with the camera, taken from a file or made from a photo, looked at, then
// handed over. Knows the camera, the clip and its dialog; nothing about chats.

import { canPerform, stagedClip } from "/stage.js";

const $ = (id) => document.getElementById(id);
const MOST_S = 15;
const SIDE_PX = 384;     // what Telegram's clients make
const FRAMES_A_SECOND = 30;
const BITS_A_SECOND = 1_500_000;
// MP4 is what Telegram's clients send; not every browser can record it.
const KINDS = ["video/mp4;codecs=avc1.42E01E", "video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm", "video/mp4"];
const REFUSALS = { NotAllowedError: "round_denied", SecurityError: "round_denied", NotReadableError: "round_busy" };

let word;                // says a sentence
let say = () => {};      // says the current one again, when the language changes
let camera = null;       // MediaStream
let recording = null;    // {recorder, stop}
let performs = false;    // whether clips can be made from photos
let clip = null;         // {blob, name, url}
let settle = null;       // resolves what `roundVideo` gave

// Ask for a round video: a promise of {blob, name}, or of null where there is to be none.
export function roundVideo() {
  return new Promise((resolve) => {
    settle = resolve;
    $("round").showModal();
    mirrored(false);
    canPerform().then((now) => { performs = now; showTools(); });
    start();
  });
}

export function speakRound() {
  say();
}

function note(key, values) {
  say = () => { $("round-note").textContent = key ? word(key, values) : ""; };
  say();
}

function step(name) {
  const had = $("round").contains(document.activeElement);
  $("round").dataset.step = name;
  showTools();
  const next = { live: "round-record", recording: "round-stop", review: "round-send", off: "round-upload" }[name];
  if (had) $(next).focus();
  clock(0);
}

function showTools() {
  for (const tool of $("round").querySelectorAll("[data-in]")) tool.hidden = !tool.dataset.in.split(" ").includes($("round").dataset.step);
  if (!performs) $("round-perform").hidden = true;
}

function clock(seconds) {
  $("round-clock").textContent = `0:${String(Math.floor(seconds)).padStart(2, "0")}`;
  $("round").querySelector(".ring circle").setAttribute("stroke-dashoffset", String(1 - Math.min(1, seconds / MOST_S)));
}

async function start() {
  forget();
  step("off");
  note("round_starting");
  let stream;
  try {
    if (!navigator.mediaDevices) throw new DOMException("no camera here", "NotFoundError");
    stream = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "user", width: { ideal: 640 }, height: { ideal: 640 } }, audio: false,
    });
  } catch (error) {
    if (settle && $("round").dataset.step === "off") note(REFUSALS[error?.name] ?? "round_no_camera");
    return;
  }
  // Meanwhile the dialog may have been closed, or a file chosen.
  if (!settle || $("round").dataset.step !== "off") return stream.getTracks().forEach((track) => track.stop());
  camera = stream;
  $("round-live").srcObject = stream;
  await $("round-live").play().catch(() => {});
  if (camera !== stream) return;
  step("live");
  note("round_live", { seconds: MOST_S });
}

function record() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE_PX;
  const pen = canvas.getContext("2d", { alpha: false });
  if ($("round-mirror").getAttribute("aria-pressed") === "true") pen.setTransform(-1, 0, 0, 1, SIDE_PX, 0);
  const kind = KINDS.find((one) => MediaRecorder.isTypeSupported(one));
  const recorder = new MediaRecorder(canvas.captureStream(FRAMES_A_SECOND), { mimeType: kind, videoBitsPerSecond: BITS_A_SECOND });
  const pieces = [];
  const began = performance.now();
  let frame = 0;
  const paint = () => {
    const seconds = (performance.now() - began) / 1000;
    square(pen, $("round-live"));
    clock(seconds);
    if (seconds >= MOST_S) stop();
    else frame = requestAnimationFrame(paint);
  };
  const stop = () => {
    cancelAnimationFrame(frame);
    if (recorder.state !== "inactive") recorder.stop();
  };
  recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
  recorder.addEventListener("stop", () => {
    if (recording?.recorder !== recorder) return;  // cancelled
    recording = null;
    const type = (recorder.mimeType || kind).split(";")[0];
    review(new Blob(pieces, { type }), type === "video/mp4" ? "round.mp4" : "round.webm", (performance.now() - began) / 1000);
  });
  recording = { recorder, stop };
  step("recording");
  note("round_recording");
  recorder.start();
  paint();
}

// The middle of the camera's picture, as large as it goes.
function square(pen, video) {
  const side = Math.min(video.videoWidth, video.videoHeight);
  if (side) pen.drawImage(video, (video.videoWidth - side) / 2, (video.videoHeight - side) / 2, side, side, 0, 0, SIDE_PX, SIDE_PX);
}

function review(blob, name, seconds = 0) {
  forget();
  clip = { blob, name, url: URL.createObjectURL(blob) };
  step("review");
  if (seconds) clock(seconds);
  note("round_ready");
  const video = $("round-review");
  video.src = clip.url;
  video.play().catch(() => {});
}

// Let camera, recording and clip go.
function forget() {
  const running = recording;
  recording = null;
  running?.stop();
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  $("round-live").srcObject = null;
  if (clip) URL.revokeObjectURL(clip.url);
  clip = null;
  $("round-review").removeAttribute("src");
  $("round-review").load();
}

function end(result) {
  forget();
  const resolve = settle;
  settle = null;
  if ($("round").open) $("round").close();
  resolve?.(result);
}

function mirrored(now) {
  $("round-mirror").setAttribute("aria-pressed", String(now));
}

export function wireRound(says) {
  word = says;
  $("round-record").addEventListener("click", record);
  $("round-stop").addEventListener("click", () => recording?.stop());
  $("round-again").addEventListener("click", start);
  $("round-mirror").addEventListener("click", () => mirrored($("round-mirror").getAttribute("aria-pressed") !== "true"));
  $("round-upload").addEventListener("click", () => $("round-file").click());
  $("round-perform").addEventListener("click", async () => {
    const made = await stagedClip();
    if (made && settle) review(made, "performance.mp4");
  });
  $("round-file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) review(file, file.name);
  });
  $("round-review").addEventListener("error", () => { if (clip) note("round_unseen"); });
  $("round-review").addEventListener("loadedmetadata", () => {
    const length = $("round-review").duration;
    if (Number.isFinite(length)) clock(length);
  });
  $("round-send").addEventListener("click", () => end({ blob: clip.blob, name: clip.name }));
  $("round-cancel").addEventListener("click", () => end(null));
  $("round").addEventListener("close", () => { if (settle) end(null); });
}
