// The dialog where a clip is made from a photo, as far as the sandbox has a performer. Knows
// nothing about what becomes of the clip.

import { element } from "/render.js";

const $ = (id) => document.getElementById(id);
const STEPS = { s: "←", o: "→", u: "↑", d: "↓" };
const COUNT = 4;

let word;         // says a sentence
let ways = {};    // whether each way takes two people
let settle = null;
let making = null;  // AbortController

// Ask the sandbox whether clips can be made; the answer may change while the page is open.
export async function canPerform() {
  const answer = await fetch("/api/performances").then((response) => response.json()).catch(() => ({}));
  ways = answer.ways ?? {};
  return Object.keys(ways).length > 0;
}

// Ask for a clip: a promise of a Blob, or of null where there is to be none.
export function stagedClip() {
  const form = $("stage-form");
  const { way } = form.elements;
  const chosen = way.value;
  way.replaceChildren(...Object.keys(ways).map((name) => element("option", { value: name }, word(`way_${name}`))));
  if (chosen in ways) way.value = chosen;
  const steps = [...$("stage-steps").querySelectorAll("select")];
  for (const [index, select] of steps.entries()) {
    const before = select.value;
    select.setAttribute("aria-label", word("perform_step", { number: index + 1 }));
    select.replaceChildren(...Object.entries(STEPS).map(([letter, arrow]) => element("option", { value: letter, "aria-label": word(`step_${letter}`) }, arrow)));
    select.value = before || "suod"[index];
  }
  $("stage-note").textContent = "";
  busy(false);
  showOther();
  $("stage").showModal();
  return new Promise((resolve) => { settle = resolve; });
}

function showOther() {
  const needed = Boolean(ways[$("stage-form").elements.way.value]);
  $("stage-other").hidden = !needed;
  $("stage-form").elements.other.required = needed;
}

function busy(now) {
  $("stage-make").disabled = now;
  $("stage-form").setAttribute("aria-busy", String(now));
}

async function make() {
  const { photo, other, way } = $("stage-form").elements;
  const form = new FormData();
  form.append("photo", photo.files[0]);
  if (ways[way.value]) form.append("other", other.files[0]);
  form.append("way", way.value);
  form.append("steps", [...$("stage-steps").querySelectorAll("select")].map((select) => select.value).join(""));
  busy(true);
  $("stage-note").textContent = word("performing");
  making = new AbortController();
  try {
    const response = await fetch("/api/performances", { method: "POST", body: form, signal: making.signal });
    if (response.ok) return end(await response.blob());
    const { error } = await response.json().catch(() => ({}));
    const sentence = word(error?.code ?? "failed");
    $("stage-note").textContent = sentence === error?.code ? word("failed") : sentence;
  } catch {
    $("stage-note").textContent = word("failed");
  }
  busy(false);
}

function end(clip) {
  making?.abort();
  making = null;
  const resolve = settle;
  settle = null;
  if ($("stage").open) $("stage").close();
  resolve?.(clip);
}

export function wireStage(says) {
  word = says;
  $("stage-steps").append(...Array.from({ length: COUNT }, () => element("select", {})));
  $("stage-form").addEventListener("submit", (event) => { event.preventDefault(); make(); });
  $("stage-form").elements.way.addEventListener("change", showOther);
  $("stage-cancel").addEventListener("click", () => end(null));
  $("stage").addEventListener("close", () => { if (settle) end(null); });
}
