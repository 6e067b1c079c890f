"""x402[httpx] as it comes, for the comparison: httpx_client.py URL TRIES, with the packages of tests/interop."""

import asyncio
import os
import sys

from eth_account import Account
from x402 import x402Client
from x402.http.clients.httpx import x402HttpxClient
from x402.mechanisms.evm.exact.register import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner


async def main(url: str, tries: int) -> None:
    client = x402Client()
    register_exact_evm_client(client, EthAccountSigner(Account.from_key(os.environ["BUYER_KEY"])), "eip155:84532")
    for _ in range(tries):
        try:
            async with x402HttpxClient(client) as http:
                response = await http.get(url)
                await response.aread()
                if response.is_success:
                    break
                print("status", response.status_code, file=sys.stderr)
        except Exception as error:  # whatever it raises, the caller tries again
            print(repr(error), file=sys.stderr)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
