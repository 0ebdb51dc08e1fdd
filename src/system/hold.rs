//! One at a time changes an installation: an update, an installation, or a removal.

use std::fs::File;

use crate::host::files::try_lock;
use crate::system::error::SystemError;
use crate::system::layout::Layout;

/// Takes the lock, which lasts as long as the file is open. The directory that it lies in must be there.
///
/// # Errors
/// While somebody else has it.
pub fn hold(layout: &Layout) -> Result<File, SystemError> {
    let lock = try_lock(&layout.lock()).map_err(SystemError::Look)?;
    lock.ok_or_else(|| {
        SystemError::Refused(
            "the installation is being updated, made or removed just now; try again when that has ended"
                .to_owned(),
        )
    })
}
