"""The command that serves what was trained to other programs, and on a page."""

from __future__ import annotations

from typing import Annotated

import typer

from moltlm.pipeline.commands.common import ConfigArg, Json, Overrides, Own, loaded
from moltlm.pipeline.console import Console

app = typer.Typer()


@app.command()
def serve(
    config: ConfigArg,
    overrides: Overrides = None,
    host: Annotated[
        str, typer.Option(help="address to listen on; one that other machines reach needs --key-env")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on; 0 takes a free one")] = 8000,
    key_env: Annotated[
        str, typer.Option(help="environment variable with the key that clients send (Authorization: Bearer)")
    ] = "",
    keep: Annotated[
        bool, typer.Option("--keep", help="write conversations, redacted, into retrain.conversations/served")
    ] = False,
    engine: Annotated[
        str, typer.Option(help="local, or the URL of llama-server, vLLM or another OpenAI-compatible server")
    ] = "local",
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="maximum length of an answer in tokens, where a request names none")
    ] = 512,
    own: Own = False,
    json_output: Json = False,
) -> None:
    """Serve the states of a run by OpenAI's chat interface, with a page to talk to them.

    What is in use answers, and a promotion takes effect with the next request.
    """
    from moltlm.pipeline.service.server import listening

    console, resolved = Console(json_output), loaded(config, overrides)
    settings = listening.Settings(host, port, key_env, keep, engine, own, max_new_tokens)
    settings.read_key()  # before a model is loaded
    with listening.bind(host, port) as sock:
        answering = listening.engine_of(resolved, settings, console)
        application = listening.application(resolved, settings, answering, console)
        url = listening.url_of(sock)
        console.result({"url": url, "api": f"{url}/v1"}, f"{url} is the page, {url}/v1 is for programs; ctrl-C ends")
        listening.listen(application, answering, sock)
