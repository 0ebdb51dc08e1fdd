//! A layer's bytes as whoever unpacks them has them: in a file, or on their way into one.

use std::io::{self, Read};

use crate::oci::arrival::{Arrival, ArrivalReader};
use crate::oci::region::{Region, RegionReader};

#[derive(Debug, Clone)]
pub enum Blob {
    Here(Region),
    Arriving(Arrival),
}

impl Blob {
    /// How long it is, or will be, in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Here(region) => region.len(),
            Self::Arriving(arrival) => arrival.len(),
        }
    }

    /// A reader from its beginning, independent of all others. That of an arriving blob waits for what has not come yet; when
    /// it does not come, its error holds the [`OciError`](crate::oci::OciError) that says why.
    pub fn reader(&self) -> BlobReader {
        match self {
            Self::Here(region) => BlobReader::Here(region.reader()),
            Self::Arriving(arrival) => BlobReader::Arriving(arrival.reader()),
        }
    }

    /// Whether the end of its reader means that all of it was read and that it is what its digest says.
    pub fn is_verified_by_its_reader(&self) -> bool {
        matches!(self, Self::Arriving(_))
    }

    /// Nobody needs the blobs of this pull any more: readers that wait for one end with an error.
    pub fn give_up(&self) {
        if let Self::Arriving(arrival) = self {
            arrival.give_up();
        }
    }
}

pub enum BlobReader {
    Here(RegionReader),
    Arriving(ArrivalReader),
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Here(reader) => reader.read(buffer),
            Self::Arriving(reader) => reader.read(buffer),
        }
    }
}
