//! Downloads of list pages, without payment and with limits on size and time.

use std::time::Duration;

use http::StatusCode;
use reqwest::Response;
use tokio::time::Instant;
use url::Url;

use crate::error::{Error, ErrorKind};
use crate::http::Client;
use crate::text;

/// The length of the longest page, in bytes after decompression.
const MAX_PAGE: usize = 4 * 1024 * 1024;
/// The length of all pages of a source, in bytes.
const MAX_SOURCE: usize = 16 * 1024 * 1024;

/// The length of the longest refusal that bursar reads, in bytes.
const MAX_REFUSAL: usize = 4 * 1024;

/// The client and the remaining limits of one source.
pub(super) struct Fetcher<'a> {
    client: &'a Client,
    end: Option<Instant>,
    time: Duration,
    room: usize,
}

impl<'a> Fetcher<'a> {
    pub(super) fn new(client: &'a Client, time: Duration) -> Self {
        Self {
            client,
            end: Instant::now().checked_add(time),
            time,
            room: MAX_SOURCE,
        }
    }

    /// Returns the body of a page.
    ///
    /// # Errors
    /// Returns an error if the client refuses the URL, the time is up, the status is not a success, or
    /// the page or the source is too long.
    pub(super) async fn get(&mut self, url: &Url) -> Result<Vec<u8>, Error> {
        let left = self.end.map_or(self.time, |end| {
            end.saturating_duration_since(Instant::now())
        });
        if left.is_zero() {
            let message = format!("the source took longer than {} s", self.time.as_secs_f32());
            return Err(Error::new(ErrorKind::Timeout, message).at(url));
        }
        let response = self
            .client
            .look(url.clone(), left)
            .await
            .map_err(|error| error.at(url))?;
        if matches!(
            response.status(),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
        ) {
            return Err(refusal(response).await.at(url));
        }
        check(response.status()).map_err(|error| error.at(url))?;
        let most = MAX_PAGE.min(self.room);
        let bytes = read(response, most).await.map_err(|error| error.at(url))?;
        self.room = self.room.saturating_sub(bytes.len());
        Ok(bytes)
    }
}

fn check(status: StatusCode) -> Result<(), Error> {
    if status.is_success() {
        return Ok(());
    }
    let (kind, message) = if status.is_redirection() {
        (
            ErrorKind::Insecure,
            "the list redirects to another origin".to_owned(),
        )
    } else {
        (ErrorKind::Status, format!("the list answers {status}"))
    };
    Err(Error::new(kind, message).with_status(status))
}

/// Returns the error of a request that the list refuses, with its words.
async fn refusal(response: Response) -> Error {
    let (status, own) = (response.status(), response.extensions().get().cloned());
    let words = read(response, MAX_REFUSAL).await.unwrap_or_default();
    let words = text::guarded(own, || text::quoted(&String::from_utf8_lossy(&words)));
    let message = format!("the list answers {status}: {words}");
    Error::new(ErrorKind::Status, message).with_status(status)
}

async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, Error> {
    let long = || {
        Error::new(
            ErrorKind::Malformed,
            format!("the list is longer than {most} bytes"),
        )
    };
    if response
        .content_length()
        .is_some_and(|length| usize::try_from(length).is_ok_and(|length| length > most))
    {
        return Err(long());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Error::http)? {
        if bytes.len().saturating_add(chunk.len()) > most {
            return Err(long());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
