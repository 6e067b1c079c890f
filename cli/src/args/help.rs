//! The long texts that `--help` prints after the options. Their lines fit on a terminal with 80 columns.

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  failed, or the answer has an error status; nothing was signed
  2  the command line, the key or the policy cannot be used; nothing was sent
  3  the policy denied the payment; nothing was signed
  4  a signature left the process, and the result is unknown; the amount
     counts against the limits
  5  paid, but the call failed
  6  paid, and the goods are at another origin, which the output names";

#[cfg(feature = "mcp-serve")]
pub(super) const SERVE: &str = "\
Configuration of an MCP client, with the key in the environment:
  {
    \"mcpServers\": {
      \"bursar\": {
        \"command\": \"bursar\",
        \"args\": [\"mcp\", \"serve\", \"--policy\", \"/etc/bursar/agent.toml\",
                 \"--agent\", \"researcher\"],
        \"env\": {\"BURSAR_PRIVATE_KEY\": \"...\"}
      }
    }
  }
With --keystore FILE, set BURSAR_KEYSTORE_PASSWORD instead of the key. With
--key-fd N, the key comes from an inherited file descriptor.

The key:
  A message of the protocol cannot reach the key. A process of the same user
  can: it reads this configuration, the keystore and the ledger. If your agent
  has a shell, run the server as another user (guide, chapter 5).

Tools:
  pay       fetch a URL, and pay if needed and allowed
  quote     show the price of a request and the decision of the policy
  budget    show each limit with the used and the remaining amount
  purchase  show one purchase of the ledger, in order to resume it
  discover  find services in the lists of the policy file, under [discovery]

Rules:
  This command line fixes the key, the policy and the ledger. A message of the
  protocol cannot change them. A call can lower its own limit and nothing else.

  If the policy requires an approval, the server asks the user of the MCP client
  by elicitation. The server trusts the answer of the client. If the client does
  not support elicitation, the server denies the payment.

  If the client stops waiting before a paid answer comes, the server keeps the
  answer for 5 minutes. An identical call returns it and pays nothing. A call
  with allow_duplicate buys again.

  Standard output carries the protocol and nothing else.

  The server ends when its standard input ends. It abandons a call that is still
  running one second later, and records that in the ledger. Send the same
  request again to resume the purchase.";

#[cfg(feature = "proxy")]
pub(super) const PROXY: &str = "\
Start:
  bursar proxy token notebook
  bursar proxy --policy agent.toml
  Set the base URL of the SDK to http://127.0.0.1:8402/openai/v1, and the token
  as its API key.

Routes:
  A [[proxy.route]] of the policy file has a path and a target, and can have an
  agent, a tag, a max_price, a credential, clients and a timeout. A path such as
  /to/https/api.example.com/v1/models names its target itself; the policy must
  name the host in [allow]. /health needs no token. /metrics is for Prometheus.

Tokens:
  The token comes as Authorization: Bearer, x-api-key, api-key or
  x-goog-api-key, and goes to no target. The name of the token is the agent of
  the purchases, unless the route or --agent names one.

Headers of a request:
  bursar-max-price        the highest price in dollars; lowers the limits only
  bursar-tag              the tag, if the route has none
  bursar-purchase-id      the id of the purchase, which is paid once
  idempotency-key         names the purchase, too, within the program's own
  bursar-allow-duplicate  true buys again while an identical call is unresolved

Headers of an answer:
  bursar-payment-status (not_paid, maybe_paid, paid), bursar-amount,
  bursar-amount-usd, bursar-network, bursar-purchase-id, bursar-transaction;
  bursar-api-key and bursar-api-cost-usd after a call with an API key;
  bursar-error on answers that the proxy wrote itself

Statuses that the proxy writes itself, with the JSON object of bursar pay:
  402  the policy denied the payment; nothing was signed
  424  a payment was signed, and its result is unknown, or the answer was lost
  422  the purchase id belongs to another request, or is in use
  400, 401, 403, 404, 405, 413, 505  nothing was sent; the message has the reason
  502, 504  the target failed; nothing was paid
  503  the proxy is busy, or the ledger, a key or the signer failed

Signals:
  SIGHUP reads the policy file again; a file with mistakes changes nothing.
  SIGTERM and ctrl-c let calls end for --stop-timeout seconds. A second one
  stops at once. Abandoned purchases are recorded, and an identical request
  presents their payment.";
#[cfg(feature = "mcp-proxy")]
pub(super) const MCP_PROXY: &str = "\
Configuration of an MCP host, with the key in the environment:
  {
    \"mcpServers\": {
      \"paid-tools\": {
        \"command\": \"bursar\",
        \"args\": [\"mcp\", \"proxy\", \"--policy\", \"/etc/bursar/agent.toml\",
                 \"--upstream\", \"weather=https://tools.example/mcp\"],
        \"env\": {\"BURSAR_PRIVATE_KEY\": \"...\"}
      }
    }
  }
With --http, the host connects to a running server instead:
  {\"mcpServers\": {\"paid-tools\": {\"url\": \"http://127.0.0.1:8402/mcp\",
    \"headers\": {\"Authorization\": \"Bearer TOKEN\"}}}}

Tools:
  The tools of the servers, with their prices in the descriptions. With several
  servers, or if servers can be added, the name is SERVER__TOOL. A name that is
  too long or taken ends with a short hash.
  bursar_budget        show each limit with the used and the remaining amount
  bursar_purchase      show one purchase of the ledger and the next step
  bursar_servers       show each server: connected or not, and why
  bursar_find_servers  find MCP servers in the lists of [discovery]
  bursar_add_server    connect to a server that was found
The last two exist if the policy file has add_servers = true under [discovery].

Results:
  The result of a tool is the one of its server. _meta has the payment under
  bursar/payment. If bursar signed a payment, the last text says so too, with
  the purchase id and the receipt. Hidden characters are escaped.

Rules:
  This command line fixes the key, the policy and the ledger. A message of the
  protocol cannot change them. A host can lower the price of a call with
  _meta[\"bursar/max_price\"], and name a purchase with bursar/purchase_id.

  If the policy requires an approval, the server asks the user of the MCP host
  by elicitation. If the host cannot ask, the payment is denied.

  The text of a seller is data. It can ask a model to buy more; only the limits
  of the policy stop that.

  A server that cannot be reached does not affect the others. bursar tries it
  again after 1 second, and then ever more rarely, up to once a minute.";

pub(super) const PAY: &str = "\
Key:
  bursar reads the private key from the environment variable BURSAR_PRIVATE_KEY
  (64 hexadecimal digits), or from the file of --keystore. The password of a
  keystore comes from BURSAR_KEYSTORE_PASSWORD, or bursar asks for it on the
  terminal. --key-fd N reads the key from an inherited file descriptor instead.
  The key is never an argument.

Limits without --policy:
  $0.10 for one payment, $5 in any 24 hours, $1 of unresolved payments, 60
  payments a minute, and 30 identical requests a minute. bursar stops paying an
  origin that took 3 payments within 10 minutes and did not deliver.

  --budget is one limit more, for the sum of everything in the ledger: the
  default limits stay unless you add --no-default-limits. --max-per-payment
  replaces the limit for one payment. With --no-default-limits, only --budget
  and --max-per-payment hold; without the latter, the budget also limits one
  payment. With --unlimited, no limit is needed. The limit on identical requests
  and the stop after 3 undelivered payments remain in any case.

Limits with --policy:
  All limits of the file hold, and the options can only make it stricter.
  --max-per-payment and --budget are additional limits. --network selects among
  the networks of the file. If the file names no network, --network is required.

  bursar uses the API keys of the file. It does not send a request that the file
  does not permit. If the policy requires an approval, bursar asks on the
  terminal. Without a terminal, it denies the payment.

Output:
  The body goes to standard output, or to the file of --output, also if the
  answer has an error status. Standard error receives one line about the
  payment. With --json, bursar prints one JSON object for each request instead:
    {\"status\":200|null, \"payment\":\"not_paid\"|\"maybe_paid\"|\"paid\",
     \"authorization\":
       {\"amount\",\"asset\",\"network\",\"payTo\",\"nonce\",\"validBefore\"}|null,
     \"receipt\":{\"success\",\"transaction\",\"network\",\"payer\"}|null,
     \"body\":\"at most 64 KiB\", \"error\":{\"kind\",\"message\"}|null}

  status         the HTTP status; null if bursar returns no answer, for example
                 after a denial
  payment        paid only if a receipt names the transaction, and its network
                 and payer match the authorization; an answer without such a
                 receipt is maybe_paid
  authorization  the signed payment: amount in atomic units as a decimal string,
                 asset is the address of the token, network in CAIP-2,
                 validBefore in Unix seconds
  receipt        the receipt of the seller; transaction is the hash of the
                 transaction
  body           the first 64 KiB; bursar reads the rest only if --output
                 stores it
  location       present if the answer redirects to another origin: the target
  error.denial   present if the policy denied the payment:
                 {\"rule\",\"scope\",\"limit\",\"used\",\"asked\",\"left\",
                 \"room_returns\",\"message\"}
  api_call       present if bursar used an API key: {\"credential\",\"usd\"},
                 the name of the key and the declared cost
  signed_in      present and true if a sign-in brought the answer, and nothing
                 was paid

Exit codes:
  0  success
  1  failed, or the answer has an error status; nothing was signed
  2  the command line, the key or the policy cannot be used; nothing was sent
  3  the policy denied the payment; nothing was signed for this request
  4  a signature left the process, and the result is unknown; this includes an
     answer without a matching receipt
  5  paid, but the call failed: an error status, or a body that broke off
  6  paid, and delivered elsewhere: the answer redirects to another origin, which
     the output names; --location fetches it, with a plain GET

  After a signature has left the process, a failed call exits with 4 or 5, even
  if the seller claims that it took no money.

  --repeat stops at the first failure. Its last line on standard error says how
  many requests were done, how much was paid and why it stopped. It exits with 3 if the policy denied that
  request, even if earlier requests were paid. Otherwise it exits with 4 if any
  payment has an unknown result, and with 5 instead of 1 if any request was
  paid.";
