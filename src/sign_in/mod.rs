//! Sign-in-with-x: a buyer proves with its key who it is, and enters a resource again that it has bought.
//!
//! A seller declares the extension `sign-in-with-x` in its terms, with a fresh challenge. [`Challenge::read`] checks that
//! the challenge belongs to the origin that sent it. The signer signs a [`SignInMessage`], which is a text for people
//! (EIP-4361) with the prefix of EIP-191. Nothing here sends anything or decides whether to sign in.

mod answered;
mod challenge;
mod grammar;
mod message;

use http::HeaderName;

pub(crate) use answered::answer_once;
pub(crate) use challenge::{Challenge, Refusal};
pub use message::SignInMessage;
#[cfg(test)]
pub(crate) use message::tests::message as test_message;

/// The request header that carries a signed challenge.
pub(crate) const SIGN_IN_WITH_X: HeaderName = HeaderName::from_static("sign-in-with-x");
