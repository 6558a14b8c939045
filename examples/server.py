"""The model is behind a server that speaks OpenAI's protocol: vLLM, llama.cpp, Ollama, or a commercial one.

    python examples/server.py openai:qwen2.5@http://localhost:8000/v1
    OPENAI_API_KEY=... python examples/server.py "openai:NAME?chat&price_in=0.15&price_out=0.6"

Without a name it starts a stand-in for a server, which reads a review by rule, if it is asked to and sees which text is the
review. The server is asked once what it can do; the stand-in tells no log-probabilities, so its answers are read as text.
"""

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import autoprompt
from autoprompt.models.load import load_model
from autoprompt.models.server.model import ServerModel

SPACE = {
    "title": "Ways to ask for a verdict",
    "template": "[[ question ]]\n\n[[ name ]] {{ text }}\n[[ cue ]] {{ answer }}",
    "slots": {
        "question": {"one_of": ["", "What did people think?", "Is the review great or terrible?"]},
        "name": {"one_of": ["", "Text:", "Review:"]},
        "cue": {"one_of": ["It was", "Verdict:"]},
    },
}
GLOOMY = (
    "not ",
    "never",
    "cold",
    "rude",
    "dirty",
    "broken",
    "awful",
    "dull",
    "worse",
    "ugly",
    "silly",
    "hollow",
    "bad",
)


class StandIn(BaseHTTPRequestHandler):
    """Lists its model and answers /chat/completions, the least a server can do."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """List the models."""
        self._send(200, {"data": [{"id": "stand-in"}]})

    def do_POST(self) -> None:
        """Say what the review sounds like."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.path.endswith("/chat/completions"):
            self._send(404, {"error": {"message": "no such call"}})
            return
        text = asked["messages"][0]["content"]
        said = "It is great!" if "great or terrible" in text else "Well, it depends."
        if "Review:" in text and any(word in text.lower() for word in GLOOMY):
            said = "Sadly, it is terrible."
        choice = {"index": 0, "message": {"role": "assistant", "content": said}}
        usage = {"prompt_tokens": len(text.split()), "completion_tokens": len(said.split())}
        self._send(200, {"choices": [choice], "usage": usage})

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _send(self, status: int, document: object) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def stand_in() -> Iterator[str]:
    """The name of a model behind a server on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"openai:stand-in@http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def search(name: str) -> None:
    """Try all prompts of the space on the bundled reviews."""
    model = load_model(name)
    task = autoprompt.Task.load("reviews").with_sizes(train=20, select=40, test=100)
    space = autoprompt.SearchSpace.from_dict(SPACE)
    result = autoprompt.optimize(task, model, 840, space=space, strategy="random_search")
    print(result)
    if isinstance(model, ServerModel):
        print("labels   ", model.reading)
        print("server   ", model.spent)


def main() -> None:
    """A server that was named, or the stand-in."""
    with contextlib.nullcontext(sys.argv[1]) if len(sys.argv) > 1 else stand_in() as name:
        search(name)


if __name__ == "__main__":
    main()
