"""The web server that releases come from, on 127.0.0.1:8000: /srv/www, and servers that misbehave.

/cut/PATH       half of PATH's bytes, then hangs up
/stall/PATH     half of PATH's bytes, then nothing
/endless/PATH   goes on for ever, without a length
/lie/PATH       says that PATH has 1 TiB
"""

import http.server
import pathlib
import time

ROOT = pathlib.Path("/srv/www")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        way, _, rest = self.path.lstrip("/").partition("/")
        if way not in ("cut", "stall", "endless", "lie"):
            way, rest = "", self.path.lstrip("/")
        path = ROOT / rest
        if not path.is_file():
            self.send_error(404)
            return
        body = path.read_bytes()
        self.close_connection = True
        self.send_response(200)
        if way == "lie":
            self.send_header("Content-Length", str(1 << 40))
        elif way != "endless":
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            if way == "":
                self.wfile.write(body)
            elif way in ("cut", "stall"):
                self.wfile.write(body[: len(body) // 2])
                if way == "stall":
                    time.sleep(3600)
            else:
                while True:
                    self.wfile.write(bytes(65536))
        except OSError:
            pass  # The client has had enough.

    def log_message(self, format, *args):
        print(self.path, *args[1:2], flush=True)


http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
