"""Who may send the demo something: its own page and programs, not the pages of other sites that a browser shows."""

from typing import Any

from starlette.responses import PlainTextResponse

ASKING = ("GET", "HEAD", "OPTIONS")  # change nothing, and Gradio keeps what they give from other sites


class OwnPage:
    """ASGI middleware. Browsers say by Sec-Fetch-Site whether a page of another site sends a request: without this,
    any page could upload files to a server on the machine it is shown on."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        other = dict(scope.get("headers", ())).get(b"sec-fetch-site") in (b"cross-site", b"same-site")
        if other and scope.get("method") not in ASKING:
            await PlainTextResponse("The page of another site may not send this.", 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)
