//! How much an image may ask of this machine. What exceeds a limit is refused while it is read, long before it fills a disk.

/// The limits; the defaults are above any image that people make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most that one layer may unpack to, in bytes.
    pub layer_bytes: u64,
    /// How many times its packed size a layer may unpack to, once that is more than [`FREE_OF_RATIO`].
    pub ratio: u64,
    /// The most members in all layers of an image together.
    pub entries: u64,
    /// The most bytes of memory for members: names, link targets, attributes, and [`PER_ENTRY`] for each.
    pub metadata_bytes: u64,
}

/// Zeros pack well: gzip makes a thousandth of them. What unpacks to less than this, in bytes, is not measured.
pub const FREE_OF_RATIO: u64 = 1 << 30;

/// What a member takes in memory beside its texts, in bytes; measured with a million of them.
pub const PER_ENTRY: u64 = 192;

impl Default for Limits {
    fn default() -> Self {
        Self { layer_bytes: 64 << 30, ratio: 2000, entries: 1 << 20, metadata_bytes: 384 << 20 }
    }
}

impl Limits {
    /// Judges a layer that has unpacked to `unpacked` bytes so far.
    ///
    /// # Errors
    /// The sentence that says of the layer what is wrong.
    pub fn check_layer(&self, packed: u64, unpacked: u64) -> Result<(), String> {
        if unpacked > self.layer_bytes {
            return Err(format!(
                "it unpacks to more than {} bytes, the most that image_limits.layer_size allows",
                self.layer_bytes
            ));
        }
        if unpacked > FREE_OF_RATIO && unpacked / packed.max(1) > self.ratio {
            return Err(format!(
                "it unpacks to more than {} times its size, the most that image_limits.ratio allows",
                self.ratio
            ));
        }
        Ok(())
    }

    /// Judges what all layers have had so far.
    ///
    /// # Errors
    /// As [`Self::check_layer`].
    pub fn check_members(&self, entries: u64, metadata_bytes: u64) -> Result<(), String> {
        if entries > self.entries {
            return Err(format!(
                "the image has more than {} members, the most that image_limits.entries allows",
                self.entries
            ));
        }
        if metadata_bytes > self.metadata_bytes {
            return Err(format!(
                "the image's names and attributes take more than {} bytes of memory, the most that image_limits.metadata_size allows",
                self.metadata_bytes
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bombs_are_refused_and_zeros_of_gzip_are_not() {
        let limits = Limits::default();
        let ok = |packed, unpacked| limits.check_layer(packed, unpacked).is_ok();
        assert!(ok(5 << 20, 5 << 30), "gzip makes a thousandth of zeros");
        assert!(ok(1, 1 << 30));
        assert!(!ok(1, (1 << 30) + 2001));
        assert!(!ok(1 << 30, (64 << 30) + 1));
        assert!(limits.check_members(1 << 20, 384 << 20).is_ok());
        assert!(limits.check_members((1 << 20) + 1, 0).is_err());
        assert!(limits.check_members(0, (384 << 20) + 1).is_err());
    }
}
