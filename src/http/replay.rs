//! Sending a request a second time.

use std::fmt;
use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use reqwest::{Request, Response};

use super::redirect;
use crate::origin::Origin;

/// Adds a new body to a request that has none.
#[derive(Clone)]
pub(crate) struct BodyFn(Arc<Complete>);

type Complete = dyn Fn(Request) -> reqwest::Result<Request> + Send + Sync;

impl BodyFn {
    pub(crate) fn new(
        complete: impl Fn(Request) -> reqwest::Result<Request> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(complete))
    }

    fn complete(&self, head: Request) -> reqwest::Result<Request> {
        (self.0)(head)
    }
}

impl fmt::Debug for BodyFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BodyFn")
    }
}

/// A request that may be sent again.
#[derive(Debug)]
pub(super) struct Replay {
    /// The request, with its body if that can be cloned.
    template: Request,
    body: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Template,
    Function(BodyFn),
    /// A stream, which the first request used.
    Spent,
}

impl Replay {
    /// Splits a request into its replay and the request to send first.
    ///
    /// # Errors
    /// When the body cannot be made.
    pub(super) fn new(
        request: Request,
        body_fn: Option<BodyFn>,
    ) -> reqwest::Result<(Self, Request)> {
        if let Some(body_fn) = body_fn {
            let template = head(&request);
            let first = body_fn.complete(request)?;
            return Ok((
                Self {
                    template,
                    body: Source::Function(body_fn),
                },
                first,
            ));
        }
        Ok(match request.try_clone() {
            Some(template) => (
                Self {
                    template,
                    body: Source::Template,
                },
                request,
            ),
            None => (
                Self {
                    template: head(&request),
                    body: Source::Spent,
                },
                request,
            ),
        })
    }

    /// Returns a copy, for another attempt at the request.
    pub(super) fn twin(&self) -> Self {
        let template = self
            .template
            .try_clone()
            .unwrap_or_else(|| head(&self.template));
        Self {
            template,
            body: self.body.clone(),
        }
    }

    /// Returns the request, perhaps without its body.
    pub(super) const fn head(&self) -> &Request {
        &self.template
    }

    /// Returns the request as it will be sent again, if that needs no new body.
    pub(super) const fn ready(&self) -> Option<&Request> {
        match self.body {
            Source::Template => Some(&self.template),
            Source::Function(_) | Source::Spent => None,
        }
    }

    /// Returns the request again, or `None` when its body was a stream.
    pub(super) fn make(&self) -> Option<Request> {
        match &self.body {
            Source::Template => self.template.try_clone(),
            Source::Function(body_fn) => body_fn.complete(head(&self.template)).ok(),
            Source::Spent => None,
        }
    }

    /// Returns the request that a redirect within the origin asks for. The caller receives other redirects: they must not
    /// carry the caller's headers to another origin, and the policy was asked about this one.
    /// A redirect from https to plain http of the same host and port stays within the origin, by https.
    pub(super) fn redirected(&self, response: &Response) -> Option<(Request, Self)> {
        let method = self.redirected_method(response.status())?;
        let url = redirect::target(response)?;
        if Origin::of(&url)? != Origin::of(response.url())? {
            return None;
        }
        let same_method = method == *self.template.method();
        let mut template = if same_method {
            self.template
                .try_clone()
                .unwrap_or_else(|| head(&self.template))
        } else {
            head(&self.template)
        };
        *template.url_mut() = url;
        let mut body = self.body.clone();
        if !same_method {
            *template.method_mut() = method;
            for name in [
                CONTENT_TYPE,
                CONTENT_LENGTH,
                CONTENT_ENCODING,
                TRANSFER_ENCODING,
            ] {
                template.headers_mut().remove(name);
            }
            body = Source::Template;
        }
        let following = Self { template, body };
        following.make().map(|request| (request, following))
    }

    /// Follows browsers and reqwest: 307 and 308 repeat the request, and the others turn it into a `GET`.
    fn redirected_method(&self, status: StatusCode) -> Option<Method> {
        let method = self.template.method();
        match status.as_u16() {
            307 | 308 => Some(method.clone()),
            303 if *method == Method::HEAD => Some(Method::HEAD),
            303 => Some(Method::GET),
            301 | 302 if *method == Method::POST => Some(Method::GET),
            301 | 302 => Some(method.clone()),
            _ => None,
        }
    }
}

/// Copies a request without its body.
fn head(request: &Request) -> Request {
    let mut copy = Request::new(request.method().clone(), request.url().clone());
    copy.headers_mut().clone_from(request.headers());
    *copy.version_mut() = request.version();
    *copy.timeout_mut() = request.timeout().copied();
    copy
}
