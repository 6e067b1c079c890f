//! Offers and receipts that the official extension offer-receipt signs.

use super::*;
use bursar::x402::Verification;

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn offers_and_receipts_of_the_official_extension_are_verified() {
    let world = World::load();
    let signer = LocalSigner::random().unwrap();
    let money = json!([
        signer.address().to_string(),
        world.usdc.to_string(),
        "0x186a0"
    ]);
    world.rpc("anvil_dealERC20", money).await;
    let policy = Policy::new()
        .allow_network("base-sepolia")
        .require_signed_offers();
    let client = Client::builder()
        .signer(signer)
        .policy(policy)
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
        .build()
        .unwrap();
    for (format, seller) in &world.signed_offers {
        let by = Verification::Verified { by: seller.pay_to };
        for path in ["/report", "/several", "/report?day=1"] {
            let url = format!("{}{path}", seller.url);
            let response = client.get(url).send().await.unwrap();
            assert_eq!(response.status(), 200, "{format} {path}");
            let receipt = response.receipt().unwrap();
            assert_eq!(receipt.signature(), &by, "{format} {path}");
            let transfers = world.transfers(receipt.transaction()).await;
            assert_eq!(transfers[0].1, seller.pay_to);
            let purchase = purchases(&client).await.pop().unwrap();
            assert_eq!(purchase.offer_signature(), by, "{format} {path}");
            assert_eq!(purchase.receipt_signature(), by, "{format} {path}");
        }
    }
    assert_eq!(purchases(&client).await.len(), 6);
    // A seller that signs nothing is refused.
    let unsigned = format!("{}/report", world.sellers["express-v2"].url);
    let error = client.get(unsigned).send().await.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::SignedOffer);
}
