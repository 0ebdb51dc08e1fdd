//! Plain http through a proxy: the request names its whole URL (RFC 9112, 3.2.2, absolute-form). ureq would ask every proxy for
//! a tunnel instead, which many allow to port 443 alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Makes a connection to a proxy one to the host that is asked for.
#[derive(Debug)]
pub struct Forward {
    /// The header with which the proxy lets us in, with its line end; may be empty.
    header: String,
}

impl Forward {
    pub fn new(proxy: &ureq::Proxy) -> Self {
        let header = match (proxy.username(), proxy.password()) {
            (None, None) => String::new(),
            (user, password) => {
                let both = format!("{}:{}", user.unwrap_or_default(), password.unwrap_or_default());
                format!("proxy-authorization: Basic {}\r\n", STANDARD.encode(both))
            }
        };
        Self { header }
    }
}

impl<In: Transport> Connector<In> for Forward {
    type Out = Forwarded<In>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let host = details.uri.authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
        let origin = format!("http://{host}");
        Ok(chained.map(|inner| Forwarded { inner, origin, header: self.header.clone(), begins: true }))
    }
}

#[derive(Debug)]
pub struct Forwarded<In> {
    inner: In,
    origin: String,
    header: String,
    /// What is sent next is the beginning of a request, not more of one.
    begins: bool,
}

impl<In: Transport> Transport for Forwarded<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if !std::mem::take(&mut self.begins) {
            return self.inner.transmit_output(amount, timeout);
        }
        let request = self.inner.buffers().output().get(..amount).map(<[u8]>::to_vec).unwrap_or_default();
        let request = absolute(&request, &self.origin, &self.header);
        let mut rest = request.as_slice();
        while !rest.is_empty() {
            let room = self.inner.buffers().output();
            let n = room.len().min(rest.len());
            room[..n].copy_from_slice(&rest[..n]);
            self.inner.transmit_output(n, timeout)?;
            rest = &rest[n..];
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        // After an answer the same connection is used for the next request.
        self.begins = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}

/// The request with the origin before its path, and `header` behind its first line.
fn absolute(request: &[u8], origin: &str, header: &str) -> Vec<u8> {
    let end = request.windows(2).position(|w| w == b"\r\n").map(|at| at + 2);
    let path = request.iter().position(|b| *b == b' ').map(|at| at + 1);
    match (path, end) {
        (Some(path), Some(end)) if path < end => {
            [&request[..path], origin.as_bytes(), &request[path..end], header.as_bytes(), &request[end..]]
                .concat()
        }
        // ureq writes a request's first line whole, or nothing.
        _ => request.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_gets_the_origin_and_the_proxy_its_header() {
        let request = b"GET /v2/a?b HTTP/1.1\r\nhost: h:1\r\n\r\n";
        assert_eq!(
            String::from_utf8_lossy(&absolute(request, "http://h:1", "p: q\r\n")),
            "GET http://h:1/v2/a?b HTTP/1.1\r\np: q\r\nhost: h:1\r\n\r\n"
        );
        assert_eq!(absolute(b"body only", "http://h", "p: q\r\n"), b"body only");
    }

    #[test]
    fn a_proxys_password_becomes_its_header() {
        let proxy = ureq::Proxy::new("http://user:se%3Acret@proxy:3128").expect("a proxy");
        // printf user:se:cret | base64
        assert_eq!(Forward::new(&proxy).header, "proxy-authorization: Basic dXNlcjpzZTpjcmV0\r\n");
        assert_eq!(Forward::new(&ureq::Proxy::new("proxy:3128").expect("a proxy")).header, "");
    }
}
