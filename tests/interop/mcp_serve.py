"""An agent with the official Python client: buys from $URL through `$BURSAR mcp serve`, and prints what it was told.

The person at it approves what costs no more than a cent.
"""

import asyncio
import json
import os

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import ElicitResult

SERVER = StdioServerParameters(
    command=os.environ["BURSAR"],
    args=["mcp", "serve", "--policy", os.environ["POLICY"], "--ledger", ":memory:", "--allow-http-loopback"],
    env={"BURSAR_PRIVATE_KEY": os.environ["BURSAR_PRIVATE_KEY"]},
)


async def person(context, params):
    approved = params.message.startswith("Pay 0.01 USDC ")
    return ElicitResult(action="accept", content={"approve": approved})


async def main():
    async with stdio_client(SERVER) as (read, write):
        async with ClientSession(read, write, elicitation_callback=person) as session:
            await session.initialize()
            told = {"tools": [tool.name for tool in (await session.list_tools()).tools]}
            for name, path in [("cheap", "report"), ("dear", "dear")]:
                result = await session.call_tool("pay", {"url": os.environ["URL"] + path})
                assert json.loads(result.content[0].text) == result.structuredContent
                told[name] = result.structuredContent | {"isError": result.isError}
            told["budget"] = (await session.call_tool("budget", {})).structuredContent
    print(json.dumps(told))


asyncio.run(main())
