//! `banger doctor --fix`, the daemon's part: what the root helper makes is made again where it is missing.

use crate::daemon::fault::Fault;
use crate::daemon::{Shared, blocking, network};
use crate::proto::api::Code;
use crate::proto::finding::Fix;
use crate::proto::root::Request;

/// # Errors
/// `Code::BadRequest` for what the daemon has no part in; `Code::NotFound` where there is nobody to ask.
pub async fn mend(d: &Shared, fix: Fix) -> Result<(), Fault> {
    blocking(d, move |d| {
        if !d.root.is_there() {
            return Err(Fault::new(Code::NotFound, "there is no root helper here, and so no bridge to mend"));
        }
        let dns_port = d.config.network.dns_port;
        match fix {
            Fix::Network => network::mend_bridge(d),
            Fix::Resolver => Ok(d.root.order(&Request::SetResolver { dns_port })?),
            Fix::Directories | Fix::Sockets | Fix::Services => {
                Err(Fault::new(Code::BadRequest, "that is root's to mend, not the daemon's"))
            }
        }
    })
    .await
}
