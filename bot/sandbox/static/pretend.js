// What the next message lies about, and the dialog where that is chosen. Knows the sandbox's names
// of lies (bot/sandbox/envelope.py); nothing about sending.

const $ = (id) => document.getElementById(id);
const CLAIMS = ["duration_s", "side_px"];  // of a video only

let word;      // says a sentence
let lies = {};

// The lies as fields of a message: `claims` are what a video says of itself.
export function pretended({ claims = false } = {}) {
  const told = Object.entries(lies).filter(([name]) => !CLAIMS.includes(name));
  if (!claims) return Object.fromEntries(told);
  const { duration_s, side_px } = lies;
  return Object.fromEntries([...told, ["duration_s", duration_s], ["width_px", side_px], ["height_px", side_px]]
    .filter(([, value]) => value !== undefined));
}

export function stopPretending() {
  lies = {};
  showPretending();
}

export function showPretending() {
  const what = Object.entries(lies).map(([name, value]) => said(name, value)).join(" · ");
  $("pretending").hidden = !what;
  $("pretending-text").textContent = word("pretending", { what });
  for (const field of $("pretend-form").querySelectorAll("[data-placeholder]")) field.placeholder = word(field.dataset.placeholder);
}

function said(name, value) {
  if (name === "age_s") return word("said_age", { seconds: value });
  if (name === "duration_s") return word("said_duration", { seconds: value });
  if (name === "side_px") return word("said_side", { pixels: value });
  if (name === "origin") return word("said_origin", { origin: word(`origin_${value}`) });
  return word(`pretend_${name}`).toLocaleLowerCase();
}

export function openPretend() {
  for (const field of $("pretend-form").elements) {
    if (field.type === "checkbox") field.checked = Boolean(lies[field.name]);
    else if (field.name) field.value = lies[field.name] ?? "";
  }
  $("pretend").showModal();
}

function read() {
  lies = {};
  for (const field of $("pretend-form").elements) {
    if (!field.name) continue;
    if (field.type === "checkbox") { if (field.checked) lies[field.name] = true; }
    else if (field.value !== "" && !(field.name === "age_s" && Number(field.value) === 0)) {
      lies[field.name] = field.type === "number" ? Number(field.value) : field.value;
    }
  }
  showPretending();
}

export function wirePretend(says, done) {
  word = says;
  $("pretend-form").addEventListener("submit", (event) => { event.preventDefault(); read(); $("pretend").close(); });
  $("pretend-clear").addEventListener("click", () => { stopPretending(); $("pretend").close(); });
  $("pretend").addEventListener("close", done);
  $("pretending-open").addEventListener("click", openPretend);
  $("pretending-close").addEventListener("click", () => { stopPretending(); done(); });
}
