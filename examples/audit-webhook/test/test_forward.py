"""The forwarder, run against a receiver with TLS that verifies what it gets with the library of
Standard Webhooks. Secrets Manager is a second server. Events are the one of docs/EVENTS.md."""

import base64
import contextlib
import io
import json
import os
import ssl
import sys
import tempfile
import threading
import unittest
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme
from standardwebhooks import Webhook, WebhookVerificationError

HERE = Path(__file__).parent
DOCUMENT = (HERE / "../../../docs/EVENTS.md").read_text()
EVENT, DELIVERED = (json.loads(block.split("```")[0]) for block in DOCUMENT.split("```json\n")[1:3])
SECRET, OTHER_SECRET = ("whsec_" + base64.b64encode(bytes([byte]) * 32).decode() for byte in (1, 2))


class Server(ThreadingHTTPServer):
    """A server on a free port that keeps its requests."""

    daemon_threads = True

    def __init__(self, answer, tls=None):
        super().__init__(("127.0.0.1", 0), Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.answer = answer
        self.requests = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """Clients that do not trust the certificate hang up."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append((self.path, dict(self.headers), body))
        status, headers, answer = self.server.answer()
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST

    def log_message(self, *_):
        pass


class Forwarding(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        authority, stranger = trustme.CA(), trustme.CA()

        def tls(ca):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            ca.issue_cert("localhost").configure_cert(context)
            return context

        cls.secret, cls.status, cls.headers = SECRET, 204, {}
        cls.receiver = Server(lambda: (cls.status, cls.headers, b""), tls(authority))
        cls.stranger = Server(lambda: (204, {}, b""), tls(stranger))
        cls.plain = Server(lambda: (204, {}, b""))
        cls.secrets = Server(lambda: (200, {}, json.dumps({"SecretString": cls.secret}).encode()))

        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        authority.cert_pem.write_to_path(Path(folder.name) / "ca.pem")
        os.environ.update(
            AWS_ACCESS_KEY_ID="test",
            AWS_SECRET_ACCESS_KEY="test",
            AWS_REGION="eu-central-1",
            AWS_DEFAULT_REGION="eu-central-1",
            AWS_ENDPOINT_URL_SECRETS_MANAGER=f"http://127.0.0.1:{cls.secrets.server_port}",
            SSL_CERT_FILE=str(Path(folder.name) / "ca.pem"),
            WEBHOOK_SECRET_ARN="arn:aws:secretsmanager:eu-central-1:111122223333:secret:webhook",
        )
        sys.path.insert(0, str(HERE / "../src"))
        cls.forward = __import__("forward")

    def setUp(self):
        Forwarding.secret, Forwarding.status, Forwarding.headers = SECRET, 204, {}
        self.forward.cached.update(keys=[], until=0.0)
        os.environ["WEBHOOK_URL"] = f"https://localhost:{self.receiver.server_port}/hooks/tokens?team=security"
        for server in (self.receiver, self.stranger, self.plain, self.secrets):
            server.requests.clear()

    def send(self, **detail):
        """Forwards an event whose detail has these fields, and returns what the receiver got."""
        event = {**EVENT, "detail": {**EVENT["detail"], **detail}}
        self.forward.handle({"Records": [{"messageId": "1", "body": json.dumps(event)}]}, None)
        ((path, headers, body),) = self.receiver.requests
        self.assertEqual(path, "/hooks/tokens?team=security")
        return {name.lower(): value for name, value in headers.items()}, body

    def assert_not_delivered(self, **detail):
        with self.assertRaises(self.forward.NotDelivered) as raised:
            self.send(**detail)
        return str(raised.exception)

    def test_receiver_verifies_the_documented_message(self):
        headers, body = self.send()
        self.assertEqual(Webhook(SECRET).verify(body, headers), DELIVERED)
        self.assertEqual(headers["webhook-id"], EVENT["detail"]["id"])
        self.assertEqual(headers["content-type"], "application/json")
        sent = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        self.assertLess(abs(datetime.now(UTC) - sent), timedelta(minutes=1))

    def test_wrong_secret_and_every_alteration_are_refused(self):
        headers, body = self.send()
        later = str(int(headers["webhook-timestamp"]) + 1)
        for secret, altered, text in [
            (OTHER_SECRET, {}, body),
            (SECRET, {}, body.replace(b"done", b"refused")),
            (SECRET, {}, body + b" "),
            (SECRET, {"webhook-id": "another"}, body),
            (SECRET, {"webhook-timestamp": later}, body),
            (SECRET, {"webhook-signature": "v1," + base64.b64encode(bytes(32)).decode()}, body),
        ]:
            with self.assertRaises(WebhookVerificationError):
                Webhook(secret).verify(text, {**headers, **altered})

    def test_optional_fields_are_plain_or_missing_whatever_stands_for_missing(self):
        text = 'quote " backslash \\ line \n ﾊﾟｲﾌﾟ "}],"outcome":"refused'
        headers, body = self.send(detail=[{"S": text}], count=[{"N": "3"}], source_ip=[{"NULL": True}])
        data = Webhook(SECRET).verify(body, headers)["data"]
        self.assertEqual((data["detail"], data["count"], data["source_ip"]), (text, 3, None))
        self.assertEqual(data["outcome"], "done")
        for missing in ([], [""], [None]):
            self.receiver.requests.clear()
            headers, body = self.send(workload=missing, source_ip=missing)
            data = Webhook(SECRET).verify(body, headers)["data"]
            self.assertNotIn("workload", data)
            self.assertIsNone(data["source_ip"])

    def test_retry_has_the_same_id(self):
        Forwarding.status = 503
        self.assertEqual(self.assert_not_delivered(), "the receiver answered 503")
        Forwarding.status = 200
        self.receiver.requests.clear()
        headers, _ = self.send()
        self.assertEqual(headers["webhook-id"], EVENT["detail"]["id"])

    def test_redirects_are_not_followed(self):
        for status in (301, 302, 303, 307, 308):
            Forwarding.status = status
            Forwarding.headers = {"location": f"http://127.0.0.1:{self.plain.server_port}/"}
            self.receiver.requests.clear()
            self.assertEqual(self.assert_not_delivered(), f"the receiver answered {status}")
        self.assertEqual(self.plain.requests, [])

    def test_nothing_is_sent_without_trusted_tls(self):
        for url in (
            f"http://127.0.0.1:{self.plain.server_port}/",
            f"https://localhost:{self.plain.server_port}/",
            f"https://localhost:{self.stranger.server_port}/",
            f"https://127.0.0.1:{self.receiver.server_port}/",  # the certificate names localhost
        ):
            os.environ["WEBHOOK_URL"] = url
            self.assert_not_delivered()
        self.assertEqual(self.plain.requests + self.stranger.requests + self.receiver.requests, [])

    def test_both_secrets_of_a_rotation_verify(self):
        Forwarding.secret = f"{OTHER_SECRET} {SECRET}"
        headers, body = self.send()
        for secret in (SECRET, OTHER_SECRET):
            self.assertEqual(Webhook(secret).verify(body, headers), DELIVERED)

    def test_secret_is_read_once_in_five_minutes(self):
        for _ in range(3):
            self.receiver.requests.clear()
            self.send()
        self.assertEqual(len(self.secrets.requests), 1)
        self.forward.cached["until"] -= self.forward.SECRET_AGE
        self.receiver.requests.clear()
        self.send()
        self.assertEqual(len(self.secrets.requests), 2)

    def test_weak_secret_signs_nothing(self):
        for secret in ("", "whsec_", "whsec_" + base64.b64encode(b"short").decode()):
            Forwarding.secret = secret
            self.forward.cached.update(keys=[], until=0.0)
            message = self.assert_not_delivered()
            self.assertEqual(message, "the secret is not whsec_ and at least 24 bytes in Base64")
        self.assertEqual(self.receiver.requests, [])

    def test_nothing_is_printed_and_errors_name_no_url_or_secret(self):
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            self.send()
            os.environ["WEBHOOK_URL"] = "https://localhost:9/token-in-the-path"
            message = self.assert_not_delivered()
        self.assertEqual(output.getvalue(), "")
        self.assertEqual(message, "no answer: ConnectionRefusedError")


if __name__ == "__main__":
    unittest.main()
