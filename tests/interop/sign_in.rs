//! Sign-ins at a seller with the official extension sign-in-with-x.

use bursar::policy::SignIn;

use super::*;

/// Returns a client that signs in, with ten cents in its wallet.
async fn client(world: &World, signer: impl Signer, sign_in: SignIn) -> Client {
    let money = json!([
        signer.address().to_string(),
        world.usdc.to_string(),
        "0x186a0"
    ]);
    world.rpc("anvil_dealERC20", money).await;
    let policy = Policy::new().allow_network("base-sepolia").sign_in(sign_in);
    Client::builder()
        .signer(signer)
        .policy(policy)
        .ledger(Ledger::memory())
        .chain(reader(world))
        .allow_http_loopback(true)
        .build()
        .unwrap()
}

async fn get(client: &Client, url: &str) -> (u16, PaymentStatus, Value) {
    let response = client.get(url).send().await.unwrap();
    let (status, payment) = (response.status().as_u16(), response.payment_status());
    (status, payment, response.json().await.unwrap())
}

/// Returns the kinds of the events of a buyer at the seller.
async fn events(world: &World, buyer: Address) -> Vec<String> {
    let url = format!("{}/events", world.sign_in.url);
    let events: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    let own = |event: &&Value| {
        let address = event["address"].as_str().unwrap_or_default();
        address.eq_ignore_ascii_case(&buyer.to_string())
    };
    let of_buyer = events.as_array().unwrap().iter().filter(own);
    of_buyer
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn the_official_seller_accepts_a_sign_in_for_each_path_that_was_bought() {
    let world = World::load();
    let signer = LocalSigner::random().unwrap();
    let buyer = signer.address();
    let client = client(&world, signer, SignIn::Known).await;
    let balance = BalanceBefore::of(&world, buyer).await;
    // `/plain` has a challenge without a statement and without an end. A query is in the challenge too.
    for (place, path) in ["/report?day=monday", "/plain"].into_iter().enumerate() {
        let url = format!("{}{path}", world.sign_in.url);
        let (status, payment, first) = get(&client, &url).await;
        assert_eq!((status, payment), (200, PaymentStatus::Paid), "{path}");
        for url in [&url, &format!("{url}&again=1").replace("plain&", "plain?")] {
            let (status, payment, again) = get(&client, url).await;
            assert_eq!((status, payment), (200, PaymentStatus::NotPaid), "{url}");
            assert_eq!(again, first);
        }
        balance.decreased_by(10_000 * (place as u64 + 1)).await;
    }
    let once = ["payment_recorded", "access_granted", "access_granted"];
    assert_eq!(events(&world, buyer).await, once.repeat(2));
    assert_eq!(purchases(&client).await.len(), 2);
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn the_official_seller_lets_a_wallet_in_that_bought_nothing_where_it_wants_no_money() {
    let world = World::load();
    let signer = LocalSigner::random().unwrap();
    let buyer = signer.address();
    let client = client(&world, signer, SignIn::Always).await;
    let url = format!("{}/me", world.sign_in.url);
    for _ in 0..2 {
        let (status, payment, body) = get(&client, &url).await;
        assert_eq!((status, payment), (200, PaymentStatus::NotPaid));
        assert_eq!(body["me"], true);
    }
    // A stranger to the path signs in first, and then pays because the seller still asks.
    let url = format!("{}/report", world.sign_in.url);
    let (_, payment, _) = get(&client, &url).await;
    assert_eq!(payment, PaymentStatus::Paid);
    assert_eq!(
        events(&world, buyer).await,
        ["access_granted", "access_granted", "payment_recorded"]
    );
    assert_eq!(purchases(&client).await.len(), 1);
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn the_official_seller_accepts_the_sign_in_of_a_contract_wallet() {
    let world = World::load();
    let owner = || LocalSigner::from_hex(&KEYS[3].to_owned().into()).unwrap();
    let address = Address::repeat_byte(0xc8);
    let code = digits(&wallet_code(owner().address()));
    let code = json!([address.to_string(), code]);
    world.rpc("anvil_setCode", code).await;
    let wallet = |owner| ContractWallet { address, owner };
    let agent = client(&world, wallet(owner()), SignIn::Always).await;
    let url = format!("{}/me", world.sign_in.url);
    assert_eq!(get(&agent, &url).await.0, 200);
    assert_eq!(events(&world, address).await, ["access_granted"]);

    // Another key signs. The contract refuses, and the sign-in does not leave.
    let stranger = wallet(LocalSigner::random().unwrap());
    let stranger = client(&world, stranger, SignIn::Always).await;
    let error = stranger.get(&url).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Signer, "{error}");
    assert_eq!(events(&world, address).await, ["access_granted"]);
}
