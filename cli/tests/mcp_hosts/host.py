"""The official Python client as a host of `bursar mcp proxy` over HTTP. Prints the results as JSON.

The person at it approves every payment.
"""

import asyncio
import json
import os

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from mcp.types import ElicitResult

HEADERS = {"Authorization": f"Bearer {os.environ['TOKEN']}"}


async def main():
    asked, progress = [], []

    async def person(context, params):
        asked.append(params.message)
        return ElicitResult(action="accept", content={"approve": True})

    async def heard(done, total, message):
        progress.append(done)

    async with streamablehttp_client(os.environ["URL"], headers=HEADERS) as (read, write, _):
        async with ClientSession(read, write, elicitation_callback=person) as session:
            await session.initialize()
            tools = (await session.list_tools()).tools
            told = {"tools": {tool.name: tool.description for tool in tools}, "results": {}}
            for name, arguments in [
                ("python__report", {"topic": "from Python"}),
                ("cloudflare__square", {"n": 12}),
                ("cloudflare__echo", {"text": "hello"}),
            ]:
                result = await session.call_tool(name, arguments, progress_callback=heard)
                told["results"][name] = result.model_dump(mode="json", by_alias=True)
    print(json.dumps(told | {"asked": asked}))


asyncio.run(main())
