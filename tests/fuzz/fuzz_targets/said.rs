//! Any bytes, as what banger's parts say to each other, each of which may be in somebody else's hands: a guest's frames and answers, and what it says
//! of its work tree; a client's and the daemon's requests. What is taken is the same when it is written and read again.
#![no_main]

use std::fmt::Debug;
use std::io::Write;
use std::os::unix::net::UnixStream;

use banger::cli::what_a_guest_says_of_its_work_tree;
use banger::proto::frame::{Frame, Kind};
use banger::proto::{agent, api, calls, root};
use serde::Serialize;
use serde::de::DeserializeOwned;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    frames(bytes);
    if let Ok(request) = calls::Request::from_json(bytes) {
        let line = request.to_json().expect("writes");
        assert!(!line.contains('\n'));
        assert_eq!(calls::Request::from_json(line.as_bytes()).expect("reads"), request);
    }
    line::<root::Request>(bytes);
    line::<root::Answer>(bytes);
    line::<agent::Request>(bytes);
    line::<agent::Answer>(bytes);
    line::<agent::Ready>(bytes);
    line::<api::Event>(bytes);
    line::<api::Failure>(bytes);
    // As frames, and as what is in one.
    work_tree(bytes);
    let pieces = bytes.chunks(100).map(|piece| Frame::new(Kind::Data, piece).bytes());
    work_tree(&pieces.chain([Frame::new(Kind::Eof, []).bytes()]).collect::<Vec<_>>().concat());
});

fn frames(mut bytes: &[u8]) {
    while let Ok(Some(frame)) = Frame::read(&mut bytes) {
        assert_eq!(Frame::read(&mut &frame.bytes()[..]).expect("reads"), Some(frame.clone()));
        drop((frame.as_resize(), frame.as_window(), frame.as_byte()));
    }
}

fn line<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(said) = serde_json::from_slice::<T>(bytes) {
        let line = serde_json::to_string(&said).expect("writes");
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<T>(&line).expect("reads"), said);
    }
}

fn work_tree(bytes: &[u8]) {
    // What a socket takes before anybody reads.
    if bytes.len() > 1 << 16 {
        return;
    }
    let (near, mut far) = UnixStream::pair().expect("a pair");
    far.write_all(bytes).expect("writes");
    far.shutdown(std::net::Shutdown::Write).expect("ends");
    if let Ok(paths) = what_a_guest_says_of_its_work_tree(near.into()) {
        assert!(paths.is_sorted() && paths.windows(2).all(|two| two[0] != two[1]));
    }
}
