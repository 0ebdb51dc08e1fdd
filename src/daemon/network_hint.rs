//! What a plain user without the root helper does not have, said once.

use crate::config::NetworkKind;
use crate::daemon::fault::Fault;
use crate::daemon::op::Op;
use crate::daemon::{Shared, apply, now};
use crate::host::progress::Progress;
use crate::store::Changes;
use crate::store::record::Setting;

/// That it has been said, and when.
const SETTING: &str = "told_of_the_root_helper";
const TEXT: &str = "VMs have QEMU's user-mode network here; with the root helper, bangerd-root, they also get names (NAME.vm), a network \
                    of their own, isolation from each other, and a network under Firecracker. This is said once.";

/// Says it, unless it has been said, there is a helper, or the configuration wants it so.
pub async fn say_once(d: &Shared, op: &Op) -> Result<(), Fault> {
    let helped = d.root.is_there();
    let chosen = d.config.network.kind == NetworkKind::User;
    if helped || chosen || d.store.get::<Setting>(SETTING)?.is_some() {
        return Ok(());
    }
    let said = Setting { name: SETTING.to_owned(), value: now().to_string() };
    apply(d, Changes::new().put(&said)).await?;
    op.note(TEXT);
    Ok(())
}
