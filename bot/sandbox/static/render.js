// A row of the chat (a message, or an album's messages) as DOM. Knows nothing about the network:
// what a click means is in `hands`. Everything that people or the bot wrote goes in as text.

const SVG = "http://www.w3.org/2000/svg";
const OTHERS = {
  sticker: "sticker", voice: "voice", video: "video", video_note: "round", audio: "voice",
  animation: "video", location: "place", contact: "contact",
};
const TAGS = {
  bold: "strong", italic: "em", underline: "u", strikethrough: "s", code: "code", pre: "pre",
  blockquote: "blockquote", expandable_blockquote: "blockquote",
};
const TINTED = ["mention", "hashtag", "text_mention"];
const SAFE_LINK = /^(https?:|tg:|mailto:|tel:)/i;

export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === "data") Object.assign(node.dataset, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export const fileUrl = (fileId) => `/api/files/${encodeURIComponent(fileId)}`;
export const textOf = (message) => message.text ?? message.caption ?? "";
export const isMine = (message) => !message.from.is_bot;

export function summary(message, word) {
  const text = textOf(message).replace(/\s+/g, " ");
  if (text) return text;
  if (message.photo) return word("photo");
  if (message.document) return message.document.file_name;
  const kind = Object.keys(OTHERS).find((name) => message[name]);
  return kind ? word(kind) : "";
}

export function renderRow(messages, hands) {
  const { word } = hands;
  const first = messages[0];
  const mine = isMine(first);
  const spoken = messages.find((message) => textOf(message));
  const name = mine ? word("you") : first.from.first_name;
  const media = renderMedia(messages, name, hands);
  const bubble = element("div", { class: "bubble" });
  if (first.forward_origin) bubble.append(forwarded(first.forward_origin, word));
  if (first.via_bot) bubble.append(element("p", { class: "forwarded" }, word("via", { name: first.via_bot.first_name })));
  if (first.sender_chat) bubble.append(element("p", { class: "forwarded" }, word("in_name_of", { name: first.sender_chat.title })));
  if (first.reply_to_message) bubble.append(quote(first.reply_to_message, hands));
  if (media) bubble.append(media);
  if (spoken) {
    const entities = spoken.entities ?? spoken.caption_entities ?? [];
    bubble.append(element("div", { class: "text", dir: "auto" }, richText(textOf(spoken), entities, hands)));
  }
  bubble.append(stamp(messages, word));
  const shape = [mine ? "mine" : "theirs"];
  if (messages.some((message) => message.photo)) shape.push("pictured");
  if (messages.some((message) => message.photo) && !spoken) shape.push("bare");
  if (first.video || first.animation) shape.push("pictured", ...(spoken ? [] : ["bare"]));
  if (first.video_note) shape.push("rounded");
  const row = element("li", {
    class: `message ${shape.join(" ")}`,
    data: { id: first.message_id, from: mine ? "me" : "bot", day: dayOf(first.date) },
    "aria-label": word("message_of", { name }),
    on: { contextmenu: (event) => { event.preventDefault(); hands.menu(first, row, event); } },
  });
  const stack = element("div", { class: "stack" }, bubble);
  const actions = element("button", {
    class: "actions", type: "button", "aria-haspopup": "menu", "aria-label": word("actions"), title: word("actions"),
    on: { click: (event) => hands.menu(first, row, event) },
  }, icon("more"));
  if (first.reply_markup?.inline_keyboard) stack.append(keyboard(first, hands));
  row.append(stack, actions);
  return row;
}

function renderMedia(messages, name, hands) {
  const photos = messages.filter((message) => message.photo);
  if (photos.length) {
    const album = element("div", { class: photos.length > 1 ? `album of-${Math.min(photos.length, 10)}` : "single" });
    for (const message of photos) album.append(photo(message, name, hands, photos.length > 1));
    return album;
  }
  const files = messages.filter((message) => message.document);
  if (files.length) return element("div", { class: "files" }, ...files.map((message) => file(message.document, hands)));
  const kind = Object.keys(OTHERS).find((one) => messages[0][one]);
  if (kind === "video_note") return roundVideo(messages[0].video_note, name, hands);
  if (kind === "video" || kind === "animation") return video(kind, messages[0][kind], name, hands);
  return kind ? other(kind, messages[0][kind], hands) : null;
}

// A round video plays where it stands, as in Telegram's clients: a press starts and stops it.
function roundVideo(note, name, hands) {
  const film = element("video", { src: fileUrl(note.file_id), preload: "metadata", playsinline: true, "aria-hidden": "true", tabindex: "-1" });
  const button = element("button", {
    class: "disc", type: "button", "aria-pressed": "false",
    "aria-label": hands.word("play_round", { name, length: clock(note.duration) }),
  }, film, element("span", { class: "start" }, icon("play")), element("span", { class: "length" }, clock(note.duration)));
  const pressed = () => button.setAttribute("aria-pressed", String(!film.paused));
  button.addEventListener("click", () => (film.paused ? film.play().catch(() => {}) : film.pause()));
  for (const kind of ["play", "pause", "ended"]) film.addEventListener(kind, pressed);
  film.addEventListener("error", () => button.replaceWith(other("video_note", note, hands)), { once: true });
  return button;
}

function video(kind, value, name, hands) {
  const film = element("video", {
    class: "film", src: fileUrl(value.file_id), preload: "metadata", playsinline: true, controls: true,
    loop: kind === "animation", width: value.width, height: value.height,
    "aria-label": hands.word("video_of", { name, length: clock(value.duration) }),
    on: { loadedmetadata: () => hands.settled() },
  });
  film.addEventListener("error", () => film.replaceWith(other(kind, value, hands)), { once: true });
  return film;
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;

function photo(message, name, hands, small) {
  const sizes = message.photo;
  const largest = sizes[sizes.length - 1];
  const shown = sizes.find((size) => Math.max(size.width, size.height) >= (small ? 320 : 800)) ?? largest;
  const alt = hands.word("photo_of", { name });
  const text = textOf(message).split("\n")[0];
  const label = text ? hands.word("open_photo_said", { name, text }) : hands.word("open_photo", { name });
  const image = element("img", {
    src: fileUrl(shown.file_id), width: largest.width, height: largest.height, alt, decoding: "async",
    on: { load: () => hands.settled() },
  });
  return element("button", {
    class: "photo", type: "button", "aria-label": label, data: { photo: message.message_id },
    on: { click: () => hands.enlarge(largest, textOf(message), alt) },
  }, image);
}

function file(document_, hands) {
  const preview = document_.thumbnail
    ? element("img", { src: fileUrl(document_.thumbnail.file_id), alt: "", on: { load: () => hands.settled() } })
    : icon("file");
  return element("a", {
    class: "file", href: fileUrl(document_.file_id), download: document_.file_name ?? "file",
    "aria-label": hands.word("download_file", { name: document_.file_name ?? "" }),
  },
  element("span", { class: "preview" }, preview),
  element("span", { class: "about" },
    element("strong", {}, document_.file_name ?? ""),
    element("span", {}, bytes(document_.file_size))));
}

function other(kind, value, hands) {
  const details = value.duration ? clock(value.duration) : "";
  return element("div", { class: `other ${kind}` },
    element("span", { class: "preview" }, icon(OTHERS[kind])),
    element("span", { class: "about" }, element("strong", {}, hands.word(kind)), element("span", {}, details)));
}

function forwarded(origin, word) {
  const name = origin.sender_user?.first_name ?? origin.sender_user_name ?? origin.sender_chat?.title ?? origin.chat?.title ?? "?";
  return element("p", { class: "forwarded" }, icon("forward"), word("forwarded", { name }));
}

function quote(message, hands) {
  const name = isMine(message) ? hands.word("you") : message.from.first_name;
  return element("button", { class: "quote", type: "button", on: { click: () => hands.goTo(message.message_id) } },
    element("strong", {}, name), element("span", {}, summary(message, hands.word)));
}

function stamp(messages, word) {
  const last = messages[messages.length - 1];
  const when = new Date(last.date * 1000);
  const line = element("div", { class: "stamp" });
  if (last.has_protected_content) line.append(element("span", { class: "lock", title: word("protected"), role: "img", "aria-label": word("protected") }, icon("lock")));
  if (last.is_from_offline) line.append(element("span", {}, word("scheduled")));
  if (messages.some((message) => message.edit_date)) line.append(element("span", {}, word("edited")));
  line.append(element("time", { datetime: when.toISOString() }, when.toLocaleTimeString(document.documentElement.lang, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" })));
  return line;
}

function keyboard(message, hands) {
  const rows = message.reply_markup.inline_keyboard.map((row, rowIndex) =>
    element("div", { class: "keys" }, ...row.map((key, index) => {
      const button = element("button", {
        class: "key", type: "button", data: { key: `${rowIndex}:${index}` },
        on: { click: () => hands.press(message, key, button) },
      }, element("span", {}, key.text), key.url ? icon("link") : null);
      return button;
    })));
  return element("div", { class: "keyboard" }, ...rows);
}

// Text with entities. Offsets are UTF-16 code units, which is what JavaScript counts in.
export function richText(text, entities, hands) {
  const sorted = [...entities].sort((one, two) => one.offset - two.offset || two.length - one.length);
  return weave(text, 0, text.length, sorted, hands);
}

function weave(text, start, stop, entities, hands) {
  const fragment = document.createDocumentFragment();
  let at = start;
  for (let index = 0; index < entities.length;) {
    const entity = entities[index];
    const from = Math.max(entity.offset, at);
    const to = Math.min(entity.offset + entity.length, stop);
    let next = index + 1;
    while (next < entities.length && entities[next].offset < to) next += 1;
    if (to > from) {
      fragment.append(text.slice(at, from));
      const inner = weave(text, from, to, entities.slice(index + 1, next), hands);
      fragment.append(dress(entity, inner, text.slice(from, to), hands));
      at = to;
    }
    index = next;
  }
  fragment.append(text.slice(at, stop));
  return fragment;
}

function dress(entity, inner, text, hands) {
  if (entity.type === "bot_command") {
    return element("button", { class: "inline", type: "button", on: { click: () => hands.say(text) } }, inner);
  }
  if (entity.type === "spoiler") {
    const spoiler = element("button", { class: "spoiler", type: "button", "aria-expanded": "false" }, inner);
    spoiler.addEventListener("click", () => { spoiler.classList.add("shown"); spoiler.setAttribute("aria-expanded", "true"); });
    return spoiler;
  }
  const link = entity.type === "text_link" ? entity.url : entity.type === "url" ? text : null;
  if (link && SAFE_LINK.test(link)) {
    return element("a", { href: link, target: "_blank", rel: "noopener noreferrer" }, inner);
  }
  const tag = TAGS[entity.type];
  return tag ? element(tag, {}, inner) : element("span", { class: TINTED.includes(entity.type) ? "tinted" : undefined }, inner);
}

export function dayOf(seconds) {
  const date = new Date(seconds * 1000);
  return `${date.getFullYear()}-${date.getMonth() + 1}-${date.getDate()}`;
}

export function bytes(count) {
  const units = ["B", "KB", "MB", "GB"];
  let index = 0;
  let size = count ?? 0;
  while (size >= 1024 && index < units.length - 1) { size /= 1024; index += 1; }
  return `${size.toLocaleString(document.documentElement.lang, { maximumFractionDigits: index ? 1 : 0 })} ${units[index]}`;
}
