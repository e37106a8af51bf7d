// The chat: state of one person's conversation, kept live by server-sent events.

import { WORDS } from "/words.js";
import { openPretend, pretended, showPretending, stopPretending, wirePretend } from "/pretend.js";
import { roundVideo, speakRound, wireRound } from "/round.js";
import { wireStage } from "/stage.js";
import { bytes, dayOf, element, fileUrl, icon, isMine, renderRow, summary, textOf } from "/render.js";

const $ = (id) => document.getElementById(id);
const PRESS_PATIENCE_MS = 15000;
const ACTION_MS = 5500;
const METHODS = ["*", "download", "getUpdates", "sendMessage", "sendPhoto", "sendMediaGroup", "sendChatAction",
  "sendDocument", "sendVideoNote", "editMessageText", "editMessageCaption", "editMessageMedia", "editMessageReplyMarkup", "deleteMessage",
  "answerCallbackQuery", "getFile"];
const TROUBLE = {
  too_many_requests: ["method", "retry_after_s"], server_error: ["method", "status"], reset: ["method"],
  lost_answer: ["method"], slow: ["method", "delay_s"], truncated_download: [], duplicate_update: [], reorder_updates: [],
};

const state = {
  people: [], person: null, device: 1, bot: null, account: null, commands: [], description: "",
  messages: new Map(),   // by id
  rows: new Map(),       // row element by key: a message's, or its album's
  files: [],             // what waits in the tray: {file, url}
  context: null,         // {kind: "reply" | "edit", message, placeholder}: placeholder where the bot asks
  pressed: new Map(),    // pending buttons by query id
  answered: new Map(),   // answers that came before their query id did
  source: null, actionTimer: null, unseen: 0,
  complete: false,       // whether the chat has been seen whole
  online: false,
};

// Words

const language = () => (state.account?.language_code ?? "").startsWith("es") ? "es" : "en";

function word(key, values = {}) {
  const sentence = WORDS[language()][key] ?? key;
  return sentence.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

function speak() {
  document.documentElement.lang = language();
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = word(node.dataset.word);
  for (const node of document.querySelectorAll("[data-label]")) {
    node.setAttribute("aria-label", word(node.dataset.label));
    if (node.matches("button, a")) node.title = word(node.dataset.label);
  }
  $("language").value = language();
  $("block-label").textContent = word(state.account?.blocked ? "unblock" : "block");
  $("description").textContent = state.description;
  for (const option of $("trouble-kind").options) option.textContent = word(option.value);
  for (const option of $("trouble-method").options) {
    option.textContent = { "*": word("trouble_any"), download: word("trouble_download") }[option.value] ?? option.value;
  }
  showStatus();
  showPretending();
  speakRound();
  showComposer();
}

// Network

async function ask(method, path, body) {
  const options = { method };
  if (body instanceof FormData) options.body = body;
  else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { "Content-Type": "application/json" };
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw { code: "offline" };
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw answer.error ?? { code: "failed" };
  return answer;
}

const home = () => `/api/people/${state.person}`;

async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Error) console.error(error);
    toast(WORDS[language()][error?.code] ? word(error.code) : word("failed"));
    return undefined;
  }
}

function follow() {
  state.source?.close();
  const source = new EventSource(`${home()}/events`);
  state.source = source;
  const kinds = { snapshot: onSnapshot, message: onMessage, edit: onEdit, delete: onDelete, action: onAction,
    answer: onAnswer, commands: onCommands, account: onAccount };
  for (const [kind, handler] of Object.entries(kinds)) {
    source.addEventListener(kind, (event) => { if (source === state.source) handler(JSON.parse(event.data)); });
  }
  // The first answer is complete with its snapshot only; later ones go on where they broke off.
  source.onopen = () => { if (state.complete) online(true); };
  source.onerror = () => {
    online(false);
    // The browser tries again by itself, unless the answer was no stream at all.
    if (source.readyState === EventSource.CLOSED && source === state.source) setTimeout(() => source === state.source && follow(), 1500);
  };
}

function online(now) {
  state.online = now;
  $("app").dataset.state = now ? "online" : "connecting";
  showStatus();
}

// Events

function onSnapshot(body) {
  Object.assign(state, { bot: body.bot, account: body.account, commands: body.commands, description: body.description });
  state.messages = new Map(body.messages.map((message) => [message.message_id, message]));
  $("bot-name").textContent = state.bot.first_name;
  $("bot-avatar").textContent = initials(state.bot.first_name);
  showDevice();
  state.complete = true;
  online(true);
  endAction();
  speak();
  redraw();
  toBottom(true);
  const asking = [...state.messages.values()].findLast((message) => isMine(message) || asksReply(message));
  if (asking && !isMine(asking)) answerTo(asking);
}

function onMessage({ message }) {
  const follows = isMine(message) || nearBottom();
  state.messages.set(message.message_id, message);
  if (!isMine(message)) endAction();
  else if (state.context?.placeholder !== undefined) setContext(null);  // answered, maybe on another device
  draw(message);
  if (!isMine(message) && asksReply(message)) answerTo(message);
  if (follows) toBottom();
  else { state.unseen += 1; showToBottom(); }
}

function onEdit({ message }) {
  const follows = nearBottom();
  state.messages.set(message.message_id, message);
  draw(message);
  if (follows) toBottom();
}

function onDelete({ message_ids }) {
  for (const id of message_ids) {
    const message = state.messages.get(id);
    state.messages.delete(id);
    if (state.context?.message.message_id === id) setContext(null);
    if (message) draw(message);
  }
  tidy();
}

function onAction({ action }) {
  const follows = nearBottom();
  state.action = action;
  clearTimeout(state.actionTimer);
  state.actionTimer = setTimeout(endAction, ACTION_MS);
  $("typing").hidden = false;
  showStatus();
  if (follows) toBottom();
}

function endAction() {
  clearTimeout(state.actionTimer);
  state.action = null;
  $("typing").hidden = true;
  showStatus();
}

function onAnswer(body) {
  const release = state.pressed.get(body.query_id);
  if (release) release();
  else state.answered.set(body.query_id, true);
  if (body.text) body.alert ? say(body.text) : toast(body.text);
}

function onCommands({ commands }) {
  state.commands = commands;
}

function onAccount({ account }) {
  state.account = account;
  speak();
  redraw();
}

// A bot may ask for a reply: then the next thing that is written is one, unless it is called off.
const asksReply = (message) => Boolean(message.reply_markup?.force_reply);

function answerTo(message) {
  if (state.context?.kind === "edit") return;
  const { input_field_placeholder: placeholder = "" } = message.reply_markup;
  setContext({ kind: "reply", message, placeholder }, { focus: !document.querySelector("dialog[open]") && !openedMenu });
}

// Drawing

const keyOf = (message) => message.media_group_id ? `g${message.media_group_id}` : `m${message.message_id}`;

const hands = {
  word,
  menu: openMessageMenu,
  enlarge,
  press,
  goTo,
  say: (text) => attempt(() => ask("POST", `${home()}/texts`, { text })),
  language,
  settled: () => { if (state.sticky) toBottom(true); },
};

function membersOf(key) {
  return [...state.messages.values()].filter((message) => keyOf(message) === key);
}

function draw(message) {
  const key = keyOf(message);
  const old = state.rows.get(key);
  const members = key.startsWith("m") ? [state.messages.get(message.message_id)].filter(Boolean) : membersOf(key);
  if (!members.length) {
    old?.remove();
    state.rows.delete(key);
  } else {
    const focused = old?.contains(document.activeElement) ? keyPath(document.activeElement) : null;
    const row = renderRow(members, hands);
    if (old) old.replaceWith(row);
    else $("messages").append(row);
    state.rows.set(key, row);
    if (focused) row.querySelector(focused)?.focus({ preventScroll: true });
  }
  tidy();
}

// So that a keyboard user who pressed a button is not thrown out of the message when it changes.
function keyPath(node) {
  if (node.dataset.key) return `[data-key="${CSS.escape(node.dataset.key)}"]`;
  return node.dataset.photo ? ".photo" : ".actions";
}

function redraw() {
  $("messages").replaceChildren();
  state.rows.clear();
  const seen = new Set();
  for (const message of state.messages.values()) {
    const key = keyOf(message);
    if (seen.has(key)) continue;
    seen.add(key);
    const row = renderRow(membersOf(key), hands);
    state.rows.set(key, row);
    $("messages").append(row);
  }
  tidy();
}

// Day lines and bubble tails depend on the neighbours.
function tidy() {
  for (const line of $("messages").querySelectorAll(".day")) line.remove();
  let previous = null;
  for (const row of [...$("messages").children]) {
    const newDay = !previous || previous.dataset.day !== row.dataset.day;
    if (newDay) row.before(element("li", { class: "day" }, element("span", {}, dayName(row.dataset.day))));
    row.classList.toggle("first", newDay || previous.dataset.from !== row.dataset.from);
    previous?.classList.toggle("last", newDay || previous.dataset.from !== row.dataset.from);
    previous = row;
  }
  previous?.classList.add("last");
  $("empty").hidden = state.messages.size > 0;
  $("messages").hidden = state.messages.size === 0;
}

function dayName(day) {
  const [year, month, date] = day.split("-").map(Number);
  const now = Date.now() / 1000;
  if (day === dayOf(now)) return word("today");
  if (day === dayOf(now - 86400)) return word("yesterday");
  return new Date(year, month - 1, date).toLocaleDateString(language(), { day: "numeric", month: "long", year: "numeric" });
}

function showStatus() {
  const status = $("status");
  const doing = state.action && ({ typing: "typing", upload_photo: "upload_photo", upload_document: "upload_document" }[state.action] ?? "busy");
  status.textContent = !state.online ? word("connecting") : doing ? word(doing) : word("bot");
  status.classList.toggle("busy", Boolean(state.online && doing));
}

function initials(name) {
  return name.split(/\s+/).slice(0, 2).map((part) => [...part][0] ?? "").join("").toUpperCase();
}

// Scrolling

const nearBottom = () => {
  const log = $("log");
  return log.scrollHeight - log.scrollTop - log.clientHeight < 120;
};

function toBottom(now = false) {
  state.unseen = 0;
  state.sticky = true;
  const calm = now || matchMedia("(prefers-reduced-motion: reduce)").matches;
  $("log").scrollTo({ top: $("log").scrollHeight, behavior: calm ? "instant" : "smooth" });
  showToBottom();
}

function showToBottom() {
  $("to-bottom").hidden = nearBottom() || state.sticky;
  $("unseen-count").textContent = state.unseen || "";
}

function goTo(messageId) {
  const message = state.messages.get(messageId);
  const row = message && state.rows.get(keyOf(message));
  if (!row) return;
  row.scrollIntoView({ block: "center", behavior: "smooth" });
  row.classList.add("flash");
  setTimeout(() => row.classList.remove("flash"), 1400);
}

// Writing

function showComposer() {
  const text = $("text");
  const waiting = state.files.length > 0;
  const editing = state.context?.kind === "edit";
  text.placeholder = waiting ? word("caption") : state.context?.placeholder || word("write");
  text.setAttribute("aria-label", text.placeholder);
  $("tray").hidden = !waiting;
  $("send-icon").setAttribute("href", editing ? "#i-check" : "#i-send");
  $("send").title = word(editing ? "save_edit" : "send");
  $("send").setAttribute("aria-label", $("send").title);
  const empty = !text.value.trim() && !waiting && !editing;
  if (empty && document.activeElement === $("send")) text.focus();
  $("send").disabled = state.sending || (!text.value.trim() && !waiting);
  $("send").hidden = empty && !state.sending;
  $("record").hidden = !$("send").hidden;
  $("composer").classList.toggle("sending", Boolean(state.sending));
  text.style.height = "auto";
  text.style.height = `${Math.min(text.scrollHeight, 160)}px`;
}

function showTray() {
  $("tray-files").replaceChildren(...state.files.map((one) => element("li", {},
    one.url ? element("img", { src: one.url, alt: one.file.name }) : icon("file"),
    element("span", {}, one.file.name),
    element("small", {}, bytes(one.file.size)),
    element("button", { class: "round", type: "button", "aria-label": word("remove", { name: one.file.name }), title: word("remove", { name: one.file.name }),
      on: { click: () => { drop([one]); $("text").focus(); } } }, icon("close")))));
  showComposer();
}

const SHOWABLE = /^image\/(jpeg|png|webp|gif|bmp|avif|heic|heif|tiff)$/;

function take(files, as) {
  const room = 10 - state.files.length;
  if (files.length > room) toast(word("too_many"));
  const taken = [...files].slice(0, room).map((file) => ({
    file, url: file.type.startsWith("image/") ? URL.createObjectURL(file) : null,
  }));
  if (!taken.length) return;
  if (state.context?.kind === "edit") setContext(null);
  state.files.push(...taken);
  $("as-file").checked = as === "file" || ($("as-file").checked && as !== "photo") || taken.some((one) => one.file.type && !SHOWABLE.test(one.file.type));
  showTray();
  $("text").focus();
}

function drop(files) {
  for (const one of files) if (one.url) URL.revokeObjectURL(one.url);
  state.files = state.files.filter((one) => !files.includes(one));
  if (!state.files.length) $("as-file").checked = false;
  showTray();
}

async function send() {
  if (state.sending) return;
  const text = $("text").value.trim();
  const files = [...state.files];
  const context = state.context;
  if (!text && !files.length) return;
  state.sending = true;
  showComposer();
  try {
    if (context?.kind === "edit") await ask("PATCH", `${home()}/messages/${context.message.message_id}`, { text });
    else {
      if (files.length) await sendFiles(files, text);
      else await ask("POST", `${home()}/texts`, { text, ...around() });
      stopPretending();
    }
    // What was written or added meanwhile stays.
    if ($("text").value.trim() === text) $("text").value = "";
    endContext(context);
    drop(files);
  } catch (error) {
    if (error?.code === "not_a_photo") {
      $("as-file").checked = true;
      toast(word("sent_as_file"));
    } else {
      if (error instanceof Error) console.error(error);
      toast(WORDS[language()][error?.code] ? word(error.code) : word("failed"));
    }
  } finally {
    state.sending = false;
    showComposer();
    $("text").focus();
  }
}

// What goes along with everything that is sent: the message that it answers, and lies.
function around(options) {
  const answered = state.context?.kind === "reply" ? { reply_to: state.context.message.message_id } : {};
  return { ...answered, ...pretended(options) };
}

function formOf(fields, files) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  for (const { file, name } of files) form.append("file", file, name || file.name || "photo.png");
  return form;
}

async function sendFiles(files, caption) {
  const form = formOf({ caption, ...around() }, files);
  await ask("POST", `${home()}/${$("as-file").checked ? "documents" : "photos"}`, form);
}

// Whatever has no caption to be written: it goes at once.
async function sendOther(kind, file, name) {
  const { context } = state;
  const fields = { kind, ...around({ claims: Boolean(file) }) };
  if (!await attempt(() => ask("POST", `${home()}/others`, formOf(fields, file ? [{ file, name }] : [])))) return;
  stopPretending();
  if (context?.kind === "reply") endContext(context);
}

async function sendRound() {
  closeMenu();
  const clip = await roundVideo();
  if (clip) await sendOther("video_note", clip.blob, clip.name);
  $("text").focus();
}

function setContext(context, { focus = true } = {}) {
  const wasEdit = state.context?.kind === "edit";
  state.context = context;
  $("context").hidden = !context;
  if (context) {
    const { kind, message } = context;
    const name = isMine(message) ? word("you") : message.from.first_name;
    $("context-title").textContent = kind === "edit" ? word("editing") : word("reply_to", { name });
    $("context-text").textContent = summary(message, word);
    $("context-icon").firstElementChild.setAttribute("href", kind === "edit" ? "#i-edit" : "#i-reply");
    if (kind === "edit") $("text").value = textOf(message);
    if (focus) $("text").focus();
  } else if (wasEdit) {
    $("text").value = "";
  }
  showComposer();
}

// The bot may have asked for the next reply before the answer to this one's sending was here.
function endContext(context) {
  if (state.context === context) setContext(null);
}

function editLast() {
  const own = [...state.messages.values()].filter((message) => isMine(message) && textOf(message) && !message.forward_origin);
  if (own.length) setContext({ kind: "edit", message: own[own.length - 1] });
}

// Buttons under messages

async function press(message, key, button) {
  if (key.url) {
    if (!/^https?:\/\//i.test(key.url)) return;
    if (await confirmed(word("open_link", { url: key.url }))) window.open(key.url, "_blank", "noopener,noreferrer");
    return;
  }
  if (button.getAttribute("aria-busy")) return;
  button.setAttribute("aria-busy", "true");
  const done = await attempt(() => ask("POST", `${home()}/presses`, { message_id: message.message_id, data: key.callback_data }));
  if (!done || state.answered.delete(done.query_id)) return button.removeAttribute("aria-busy");
  const release = () => {
    clearTimeout(timer);
    state.pressed.delete(done.query_id);
    button.removeAttribute("aria-busy");
  };
  const timer = setTimeout(() => { release(); toast(word("no_answer")); }, PRESS_PATIENCE_MS);
  state.pressed.set(done.query_id, release);
}

// Menus: one open at a time, arrows move, Esc closes and gives the focus back.

let openedMenu = null;

function openMenu(menu, opener, { focus = true } = {}) {
  closeMenu();
  menu.hidden = false;
  opener?.setAttribute("aria-expanded", "true");
  openedMenu = { menu, opener };
  if (focus) menu.querySelector("[role=menuitem]:not([disabled])")?.focus();
}

function closeMenu(giveBack = false) {
  if (!openedMenu) return;
  const { menu, opener } = openedMenu;
  openedMenu = null;
  menu.hidden = true;
  opener?.setAttribute("aria-expanded", "false");
  if (giveBack) opener?.focus();
}

function toggleMenu(menu, opener, prepare) {
  if (openedMenu?.menu === menu) return closeMenu(true);
  prepare?.();
  openMenu(menu, opener);
}

function moveInMenu(event) {
  if (!openedMenu?.menu.contains(document.activeElement)) return;
  const items = [...openedMenu.menu.querySelectorAll("[role=menuitem]:not([disabled])")];
  const at = items.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  items[(to + items.length) % items.length]?.focus();
}

function openMessageMenu(message, row, event) {
  const menu = $("message-menu");
  const mine = isMine(message);
  const locked = message.has_protected_content;
  const choices = [
    ["reply", "reply", () => setContext({ kind: "reply", message }), true],
    ["forward", "forward", () => forward(message), !locked],
    ["forward_otherwise", "mask", () => openForwarding(message), !locked],
    ["edit", "edit", () => setContext({ kind: "edit", message }), mine && textOf(message) && !message.forward_origin],
    ["edit_photo", "photo", () => replacePhoto(message), mine && message.photo && !message.forward_origin],
    ["copy", "copy", () => copy(message), textOf(message) && !locked],
    ["delete", "bin", () => remove(message), true],
  ].filter(([, , , shown]) => shown);
  menu.replaceChildren(...choices.map(([key, picture, act]) => element("button", {
    type: "button", role: "menuitem", data: { action: key }, on: { click: () => { closeMenu(true); act(); } },
  }, icon(picture), element("span", {}, word(key)))));
  if (locked) menu.append(element("p", { class: "quiet" }, icon("lock"), word("protected")));
  const opener = row.querySelector(".actions");
  openMenu(menu, opener, { focus: false });
  const at = event.type === "contextmenu" && event.clientX ? { x: event.clientX, y: event.clientY } : corner(opener);
  menu.style.left = `${Math.max(8, Math.min(at.x, innerWidth - menu.offsetWidth - 8))}px`;
  menu.style.top = `${Math.max(8, Math.min(at.y, innerHeight - menu.offsetHeight - 8))}px`;
  menu.querySelector("[role=menuitem]").focus({ preventScroll: true });
}

function corner(node) {
  const box = node.getBoundingClientRect();
  return { x: box.left, y: box.bottom + 4 };
}

// A forward to the bot, which is what a forward is for here.
async function forward(message, person = state.person, origin = "user") {
  const how = { user: {}, hidden_user: { hidden: true }, copy: { copy: true } }[origin] ?? { origin };
  const fields = { message_id: message.message_id, ...pretended(), ...how };
  if (!await attempt(() => ask("POST", `/api/people/${person}/forwards`, fields))) return;
  stopPretending();
  if (person !== state.person) toast(word("forwarded_as", { name: state.people.find((one) => one.name === person).first_name }));
}

function openForwarding(message) {
  const { person, origin } = $("forwarding-form").elements;
  person.replaceChildren(...state.people.map((one) => element("option", { value: one.name }, one.first_name)));
  person.value = state.person;
  origin.value = "user";
  state.forwarding = message;
  $("forwarding").showModal();
}

let replaced = null;  // the message whose photo is to be another one

function replacePhoto(message) {
  replaced = message;
  $("pick-replacement").click();
}

function takeReplacement(event) {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file || !replaced) return;
  const { message_id } = replaced;
  attempt(() => ask("PATCH", `${home()}/messages/${message_id}`, formOf({}, [{ file }])));
  $("text").focus();
}

async function remove(message) {
  const members = membersOf(keyOf(message));
  for (const one of members) await attempt(() => ask("DELETE", `${home()}/messages/${one.message_id}`));
  $("text").focus();
}

async function copy(message) {
  await attempt(() => navigator.clipboard.writeText(textOf(message)));
  toast(word("copied"));
}

// Commands: the menu of the button, and what is offered while "/..." is being typed.

function fillCommands(start = "") {
  const offered = state.commands.filter((one) => `/${one.command}`.startsWith(start));
  const items = offered.map((one) => element("button", {
    type: "button", role: "menuitem", data: { command: one.command },
    on: { click: () => { closeMenu(); $("text").value = ""; showComposer(); hands.say(`/${one.command}`); $("text").focus(); } },
  }, element("strong", {}, `/${one.command}`), element("span", {}, one.description)));
  if (!items.length && !start) items.push(element("p", { class: "quiet" }, word("no_commands")));
  $("commands-menu").replaceChildren(...items);
  return items.length;
}

function offerCommands() {
  const text = $("text").value;
  const typing = /^\/[a-z0-9_]*$/.test(text) && !state.files.length && state.context?.kind !== "edit";
  if (typing && fillCommands(text)) openMenu($("commands-menu"), $("commands"), { focus: false });
  else if (openedMenu?.menu === $("commands-menu")) closeMenu();
}

// Dialogs and toasts

function enlarge(size, caption, alt) {
  const viewer = $("viewer");
  $("viewer-image").src = fileUrl(size.file_id);
  $("viewer-image").alt = alt;
  $("viewer-image").width = size.width;
  $("viewer-image").height = size.height;
  $("viewer-save").href = fileUrl(size.file_id);
  $("viewer-caption").textContent = caption;
  $("viewer-caption").hidden = !caption;
  viewer.showModal();
  $("viewer-close").focus();
}

function dialog(text, { cancel }) {
  $("alert-text").textContent = text;
  $("alert-ok").textContent = word("ok");
  $("alert-cancel").hidden = !cancel;
  $("alert").returnValue = "";
  if ($("alert").open) $("alert").close();
  $("alert").showModal();
  return new Promise((resolve) => $("alert").addEventListener("close", () => resolve($("alert").returnValue === "ok"), { once: true }));
}

const say = (text) => dialog(text, { cancel: false });
const confirmed = (text) => dialog(text, { cancel: true });

function toast(text) {
  const note = element("div", { class: "toast" }, text);
  $("toasts").replaceChildren(note);
  setTimeout(() => note.classList.add("going"), 4200);
  setTimeout(() => note.remove(), 4600);
}

// Trouble on demand

async function showTrouble() {
  $("trouble").showModal();
  showOrders(await attempt(() => ask("GET", "/api/faults")));
}

function showOrders(answer) {
  if (!answer) return;
  $("trouble-orders").replaceChildren(...answer.faults.map((fault) => element("li", {},
    element("strong", {}, `${fault.count}×`), element("span", {}, word(fault.kind)),
    TROUBLE[fault.kind].includes("method") && fault.method !== "*" ? element("code", {}, fault.method) : null)));
  $("trouble-clear").disabled = !answer.faults.length;
}

function showNeeds() {
  const needs = TROUBLE[$("trouble-kind").value];
  for (const label of $("trouble-form").querySelectorAll("[data-needs]")) label.hidden = !needs.includes(label.dataset.needs);
}

async function addTrouble() {
  const kind = $("trouble-kind").value;
  const fault = { kind, count: Number($("trouble-count").value) };
  for (const need of TROUBLE[kind]) {
    const value = $(`trouble-${need}`).value;
    fault[need] = need === "method" ? value : Number(value);
  }
  showOrders(await attempt(() => ask("POST", "/api/faults", fault)));
}

// People

function showPeople() {
  $("people").replaceChildren(...state.people.map((person) => element("button", {
    class: "person", type: "button", data: { person: person.name }, "aria-pressed": String(person.name === state.person),
    "aria-label": `${word("write_as")} ${person.first_name}`, title: person.first_name,
    on: { click: () => become(person.name) },
  }, element("span", { class: `avatar small ${person.name}`, "aria-hidden": "true" }, initials(person.first_name)),
  element("span", { class: "name" }, person.first_name),
  person.name === state.person && state.device > 1 ? element("span", { class: "device" }, String(state.device)) : null)));
}

// Windows tell themselves apart by their fragment: #ana is Ana's first device, #ana/2 her second.
function showDevice() {
  const person = state.people.find((one) => one.name === state.person);
  history.replaceState(null, "", state.device > 1 ? `#${state.person}/${state.device}` : `#${state.person}`);
  $("other-device").href = `/#${state.person}/${state.device + 1}`;
  document.title = [state.bot?.first_name, person.first_name + (state.device > 1 ? ` ${state.device}` : "")].filter(Boolean).join(" · ");
}

function become(name) {
  if (state.person === name) return;
  state.person = name;
  state.account = state.people.find((person) => person.name === name);
  state.messages = new Map();
  state.rows.clear();
  state.pressed.clear();
  state.answered.clear();
  showDevice();
  setContext(null);
  stopPretending();
  $("text").value = "";
  drop(state.files);
  endAction();
  closeMenu();
  state.complete = false;
  online(false);
  $("messages").replaceChildren();
  $("empty").hidden = true;
  showPeople();
  speak();
  document.querySelector(`[data-person="${name}"]`).focus();
  follow();
}

// Wiring

function wire() {
  const text = $("text");
  $("composer").addEventListener("submit", (event) => { event.preventDefault(); send(); });
  text.addEventListener("input", () => { showComposer(); offerCommands(); });
  text.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const offering = openedMenu?.menu === $("commands-menu");
    if (offering && ["ArrowUp", "ArrowDown", "Tab"].includes(event.key)) {
      event.preventDefault();
      event.stopPropagation();  // or the same key would move on within the menu
      const items = openedMenu.menu.querySelectorAll("[role=menuitem]");
      items[event.key === "ArrowUp" ? items.length - 1 : 0]?.focus();
    } else if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      closeMenu();
      send();
    } else if (event.key === "ArrowUp" && !text.value && !state.files.length) {
      event.preventDefault();
      editLast();
    }
  });
  document.addEventListener("keydown", (event) => {
    moveInMenu(event);
    if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
    if (openedMenu) closeMenu(true);
    else if (state.context) setContext(null);
    else if (state.files.length) drop(state.files);
  });
  document.addEventListener("pointerdown", (event) => {
    if (openedMenu && !openedMenu.menu.contains(event.target) && !openedMenu.opener?.contains(event.target)) closeMenu();
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length && !document.querySelector("dialog[open]")) { event.preventDefault(); take(files); }
  });

  $("commands").addEventListener("click", () => toggleMenu($("commands-menu"), $("commands"), () => fillCommands()));
  $("attach").addEventListener("click", () => toggleMenu($("attach-menu"), $("attach")));
  $("more").addEventListener("click", () => toggleMenu($("more-menu"), $("more")));
  for (const [opener, input] of [["attach-photo", "pick-photos"], ["attach-file", "pick-files"], ["empty-pick", "pick-photos"]]) {
    $(opener).addEventListener("click", () => { closeMenu(true); $(input).click(); });
  }
  $("pick-photos").addEventListener("change", (event) => { take([...event.target.files], "photo"); event.target.value = ""; });
  $("pick-files").addEventListener("change", (event) => { take([...event.target.files], "file"); event.target.value = ""; });
  for (const button of document.querySelectorAll("[data-other]")) {
    button.addEventListener("click", () => { closeMenu(true); sendOther(button.dataset.other); });
  }
  $("attach-video").addEventListener("click", () => { closeMenu(true); $("pick-video").click(); });
  $("pick-video").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) sendOther("video", file);
  });
  $("attach-round").addEventListener("click", sendRound);
  $("record").addEventListener("click", sendRound);
  wireRound(word);
  wireStage(word);
  $("open-pretend").addEventListener("click", () => { closeMenu(true); openPretend(); });
  wirePretend(word, () => text.focus());
  $("pick-replacement").addEventListener("change", takeReplacement);
  $("other-device").addEventListener("click", () => closeMenu(true));
  $("forwarding-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const { person, origin } = event.target.elements;
    $("forwarding").close();
    forward(state.forwarding, person.value, origin.value);
  });
  $("forwarding-cancel").addEventListener("click", () => $("forwarding").close());
  $("empty-start").addEventListener("click", () => { hands.say("/start"); text.focus(); });
  $("context-close").addEventListener("click", () => setContext(null));
  $("as-file").addEventListener("change", () => text.focus());
  $("to-bottom").addEventListener("click", () => toBottom());
  $("log").addEventListener("scroll", () => {
    if (nearBottom()) state.unseen = 0;
    showToBottom();
  }, { passive: true });
  for (const kind of ["wheel", "touchmove", "keydown"]) {
    $("log").addEventListener(kind, () => { state.sticky = false; }, { passive: true });
  }
  addEventListener("resize", () => { if (nearBottom()) toBottom(true); });
  // What opens above the line of text takes room from the conversation, whose end should stay in sight.
  new ResizeObserver(() => { if (state.sticky) toBottom(true); }).observe($("log"));

  $("language").addEventListener("change", () => attempt(() => ask("PATCH", home(), { language_code: $("language").value })));
  $("clear-chat").addEventListener("click", async () => {
    closeMenu(true);
    if (await confirmed(word("clear_sure"))) attempt(() => ask("DELETE", `${home()}/messages`));
  });
  $("block-bot").addEventListener("click", () => {
    closeMenu(true);
    attempt(() => ask("PATCH", home(), { blocked: !state.account.blocked }));
  });

  for (const viewer of [$("viewer"), $("trouble"), $("alert"), $("pretend"), $("forwarding")]) {
    viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  }
  $("viewer-close").addEventListener("click", () => $("viewer").close());
  $("alert-ok").addEventListener("click", () => $("alert").close("ok"));
  $("alert-cancel").addEventListener("click", () => $("alert").close(""));

  $("trouble-kind").append(...Object.keys(TROUBLE).map((kind) => element("option", { value: kind })));
  $("trouble-method").append(...METHODS.map((method) => element("option", { value: method })));
  $("open-trouble").addEventListener("click", () => { closeMenu(true); showTrouble(); });
  $("trouble-kind").addEventListener("change", showNeeds);
  $("trouble-form").addEventListener("submit", (event) => { event.preventDefault(); addTrouble(); });
  $("trouble-clear").addEventListener("click", async () => showOrders(await attempt(() => ask("DELETE", "/api/faults"))));
  $("trouble-close").addEventListener("click", () => $("trouble").close());
  showNeeds();
  wireDrops();
}

function wireDrops() {
  let depth = 0;
  const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const end = () => { depth = 0; $("drop").hidden = true; };
  addEventListener("dragenter", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth += 1;
    $("drop").hidden = false;
  });
  addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    const under = event.target.closest?.(".zone");
    for (const zone of document.querySelectorAll(".zone")) zone.classList.toggle("over", zone === under);
  });
  addEventListener("dragleave", () => { depth -= 1; if (depth <= 0) end(); });
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    const as = event.target.closest?.(".zone")?.dataset.as;
    end();
    take([...event.dataTransfer.files], as ?? "photo");
  });
}

async function begin() {
  wire();
  const { people } = await ask("GET", "/api/people");
  state.people = people;
  const [wanted, device] = location.hash.slice(1).split("/");
  state.device = Math.max(1, Number.parseInt(device, 10) || 1);
  become(people.some((person) => person.name === wanted) ? wanted : people[0].name);
  $("text").focus();
}

begin().catch((error) => { console.error(error); toast(word("offline")); setTimeout(() => location.reload(), 3000); });
