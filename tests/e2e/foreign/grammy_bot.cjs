// The bot of test_foreign_bots with grammY. Takes TOKEN, API (the sandbox's address) and, to get
// its updates by webhook, SECRET.

const { createServer } = require("node:http");
const { Bot, GrammyError, InlineKeyboard, InputFile, InputMediaBuilder, webhookCallback } = require("grammy");

const { API, SECRET, TOKEN } = process.env;
const bot = new Bot(TOKEN, { client: { apiRoot: API } });
const photos = [];

bot.command("start", (context) => context.reply("<b>hello</b>", {
  parse_mode: "HTML",
  reply_markup: new InlineKeyboard().text("Press", "press"),
}));

bot.callbackQuery("press", async (context) => {
  await context.answerCallbackQuery({ text: "pressed", show_alert: true });
  try {
    await context.answerCallbackQuery("again");
  } catch (error) {
    if (!(error instanceof GrammyError)) throw error;
    await context.reply(`${error.error_code} ${error.description}`);
  }
});

bot.on("message:photo", async (context) => {
  const fileId = context.message.photo.at(-1).file_id;
  const file = await context.getFile();
  const answer = await fetch(`${API}/file/bot${TOKEN}/${file.file_path}`);
  const data = new Uint8Array(await answer.arrayBuffer());
  photos.push([fileId, new InputFile(data)]);
  await context.replyWithPhoto(fileId, { caption: `${data.length} bytes` });
  await context.replyWithPhoto(new InputFile(data), { caption: "uploaded" });
});

bot.hears("album", (context) =>
  context.replyWithMediaGroup(photos.at(-1).map((one) => InputMediaBuilder.photo(one))));

bot.hears("edit", async (context) => {
  const sent = await context.reply("before");
  await context.api.editMessageText(context.chat.id, sent.message_id, "after");
});

if (SECRET) {
  const server = createServer(webhookCallback(bot, "http", { secretToken: SECRET }));
  server.listen(0, "127.0.0.1", async () => {
    const url = `http://127.0.0.1:${server.address().port}/`;
    await bot.api.setWebhook(url, { secret_token: SECRET });
    console.log("ready");
  });
} else {
  bot.start({ onStart: () => console.log("ready") });
}
