"""A small real bot of python-telegram-bot for the web chat to talk to; it sees no faces."""

from telegram import ForceReply, InlineKeyboardButton, InlineKeyboardMarkup, Message, Update
from telegram.ext import (
    Application,
    CallbackQueryHandler,
    CommandHandler,
    ContextTypes,
    MessageHandler,
    filters,
)

from bot.sandbox import Sandbox

KEYS = InlineKeyboardMarkup(
    [
        [
            InlineKeyboardButton("More", callback_data="more"),
            InlineKeyboardButton("Alert", callback_data="alert"),
        ],
        [InlineKeyboardButton("Delete", callback_data="delete")],
    ]
)
ASKED = "A round video"
EXPORT = b'{"consents": []}'
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>&lt;b&gt; " \''


class EchoBot:
    """Sends every photo back with buttons; remembers what it got."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.got: list[Message] = []
        self.application = (
            Application.builder()
            .token(sandbox.token)
            .base_url(sandbox.bot_api_url)
            .base_file_url(sandbox.file_url)
            .build()
        )
        self.application.add_handler(CommandHandler("start", self._start))
        new = filters.UpdateType.MESSAGE
        self.application.add_handler(MessageHandler(filters.PHOTO & new, self._photo))
        self.application.add_handler(CallbackQueryHandler(self._pressed))
        self.application.add_handler(MessageHandler(filters.ALL, self._other))

    async def _start(self, update: Update, _: ContextTypes.DEFAULT_TYPE) -> None:
        language = update.effective_user.language_code
        await update.message.reply_text(f"<b>Welcome</b> {language}", parse_mode="HTML")

    async def _photo(self, update: Update, _: ContextTypes.DEFAULT_TYPE) -> None:
        self.got.append(update.message)
        await update.message.reply_chat_action("upload_photo")
        file = await update.message.photo[-1].get_file()
        data = bytes(await file.download_as_bytearray())
        await update.message.reply_photo(
            data,
            caption="It is <i>you</i>",
            parse_mode="HTML",
            reply_markup=KEYS,
            do_quote=True,
            protect_content=update.message.caption == "protect",
        )

    async def _pressed(self, update: Update, _: ContextTypes.DEFAULT_TYPE) -> None:
        query = update.callback_query
        if query.data == "alert":
            await query.answer("Look at this!", show_alert=True)
        elif query.data == "delete":
            await query.answer()
            await query.delete_message()
        else:
            await query.answer("Here is more")
            await query.edit_message_caption("More of you", reply_markup=KEYS)

    async def _other(self, update: Update, _: ContextTypes.DEFAULT_TYPE) -> None:
        message = update.effective_message
        self.got.append(message)
        if update.edited_message is not None and message.photo:
            await message.reply_text("another photo")
        elif message.text == "ask":
            await message.reply_text(
                "Show me", reply_markup=ForceReply(input_field_placeholder=ASKED)
            )
        elif message.text == "export":
            await message.reply_document(EXPORT, filename="my-data.json", caption="All of it")
        elif message.video_note:
            data = await (await message.video_note.get_file()).download_as_bytearray()
            await message.reply_video_note(bytes(data), do_quote=True)
        elif message.text == "hostile":
            keys = InlineKeyboardMarkup([[InlineKeyboardButton(HOSTILE, callback_data="x")]])
            await message.reply_text(HOSTILE, reply_markup=keys)
            await message.reply_document(b"x", filename="<img src=x onerror=window.hacked=1>.txt")
        else:
            await message.reply_text(f"got {message.text or message.caption or 'something'}")
