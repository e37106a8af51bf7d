"""The bot of test_foreign_bots with pyTelegramBotAPI; runs in an environment of its own.

Takes TOKEN, API (the sandbox's address) and, to get its updates by webhook, SECRET.
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import telebot
from telebot import apihelper, types
from telebot.apihelper import ApiTelegramException

API, SECRET = os.environ["API"], os.environ.get("SECRET")
apihelper.API_URL = API + "/bot{0}/{1}"
apihelper.FILE_URL = API + "/file/bot{0}/{1}"
bot = telebot.TeleBot(os.environ["TOKEN"])
photos: list[tuple[str, bytes]] = []


@bot.message_handler(commands=["start"])
def start(message: types.Message) -> None:
    keys = types.InlineKeyboardMarkup()
    keys.add(types.InlineKeyboardButton("Press", callback_data="press"))
    bot.send_message(message.chat.id, "<b>hello</b>", parse_mode="HTML", reply_markup=keys)


@bot.callback_query_handler(func=lambda query: query.data == "press")
def pressed(query: types.CallbackQuery) -> None:
    bot.answer_callback_query(query.id, "pressed", show_alert=True)
    try:
        bot.answer_callback_query(query.id, "again")
    except ApiTelegramException as error:
        bot.send_message(query.from_user.id, f"{error.error_code} {error.description}")


@bot.message_handler(content_types=["photo"])
def photo(message: types.Message) -> None:
    file_id = message.photo[-1].file_id
    data = bot.download_file(bot.get_file(file_id).file_path)
    photos.append((file_id, data))
    bot.send_photo(message.chat.id, file_id, caption=f"{len(data)} bytes")
    bot.send_photo(message.chat.id, data, caption="uploaded")


@bot.message_handler(func=lambda message: message.text == "album")
def album(message: types.Message) -> None:
    media = [types.InputMediaPhoto(one) for one in photos[-1]]
    bot.send_media_group(message.chat.id, media)


@bot.message_handler(func=lambda message: message.text == "edit")
def edit(message: types.Message) -> None:
    sent = bot.send_message(message.chat.id, "before")
    bot.edit_message_text("after", message.chat.id, sent.message_id)


class Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        right = self.headers["X-Telegram-Bot-Api-Secret-Token"] == SECRET
        self.send_response(200 if right else 403)
        self.end_headers()
        if right:
            bot.process_new_updates([types.Update.de_json(body.decode())])

    def log_message(self, *_: object) -> None:
        pass


if SECRET:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    bot.set_webhook(f"http://127.0.0.1:{server.server_port}/", secret_token=SECRET)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()
else:
    bot.get_me()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    bot.infinity_polling(timeout=20, long_polling_timeout=20)
