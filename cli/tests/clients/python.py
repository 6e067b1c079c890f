"""A program with the official Python SDK of OpenAI, which knows nothing of payments.

BURSAR_PROXY is the URL of the proxy, and BURSAR_TOKEN the token. The test of bursar checks the ledger and the seller.
"""

import os

import openai

PROXY = os.environ["BURSAR_PROXY"]
MESSAGES = [{"role": "user", "content": "Say hello."}]


def client(route):
    return openai.OpenAI(base_url=f"{PROXY}{route}", api_key=os.environ["BURSAR_TOKEN"])


def ask(route, **options):
    return client(route).chat.completions.create(model="gpt-test", messages=MESSAGES, **options)


# The models are free.
assert [model.id for model in client("/openai/v1").models.list()] == ["gpt-test"]

# A completion, with the payment in the headers of the raw answer.
raw = client("/openai/v1").chat.completions.with_raw_response.create(model="gpt-test", messages=MESSAGES)
assert raw.parse().choices[0].message.content == "Hello from the seller."
assert raw.headers["bursar-payment-status"] == "paid", raw.headers
assert raw.headers["bursar-amount"] == "0.01 USDC", raw.headers
assert raw.headers["bursar-transaction"].startswith("0x"), raw.headers

# A stream.
words = [chunk.choices[0].delta.content or "" for chunk in ask("/openai/v1", stream=True) if chunk.choices]
assert len(words) > 1 and "".join(words) == "Hello from the seller.", words

# The target in the path, without a route.
assert ask(f"/to/{os.environ['BURSAR_SELLER'].replace('://', '/')}/v1").choices

# A denial is not repeated, and the error has the words of the policy.
try:
    ask("/openai/dear/v1")
    raise AssertionError("a price above the limit was paid")
except openai.APIStatusError as error:
    assert error.status_code == 402, error
    assert error.code == "denied" and error.body["denial"]["rule"] == "max_price", error.body
    assert error.message.find("not paid") >= 0, error.message

# An unknown outcome is not repeated by the SDK. The program repeats it, and pays nothing new.
for _ in range(2):
    try:
        ask("/openai/lost/v1")
        raise AssertionError("an answer that was lost came")
    except openai.APIStatusError as error:
        assert error.status_code == 424, error
        assert error.response.headers["bursar-payment-status"] == "maybe_paid"

# Without a token, there is nothing.
try:
    openai.OpenAI(base_url=f"{PROXY}/openai/v1", api_key="sk-another-key").models.list()
    raise AssertionError("the proxy took a foreign key")
except openai.AuthenticationError as error:
    assert error.code == "token", error.body

print("python: ok")
