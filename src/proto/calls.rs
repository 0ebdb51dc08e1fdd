//! What the daemon can be asked, each with its method and the type of its answer, and a request as the line that it travels in:
//! `{"method":"vm.show","params":{"vm":"dev"}}`.

use std::borrow::Cow;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::image::record::ImageRecord;
use crate::proto::api::*;
use crate::proto::workspace::Held;
use crate::vm::workspace::Workspace;

/// How a daemon's refusal of a request begins that it has never heard of: it is of another version of banger.
pub const UNKNOWN_REQUEST: &str = "this is no request that bangerd knows";

/// A request together with the type of its answer.
pub trait Call: Into<Request> {
    type Answer: Serialize + DeserializeOwned;
}

#[derive(Serialize)]
struct Said<'a, P> {
    method: &'static str,
    params: &'a P,
}

#[derive(Deserialize)]
struct Heard<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: &'a RawValue,
}

macro_rules! calls {
    ($($method:literal $variant:ident -> $answer:ty;)*) => {
        /// Everything that the daemon does. `vm`, `image` and `kernel` are what a person typed: a name, an id, or a unique prefix.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Request {
            $($variant($variant),)*
        }

        // By hand rather than as serde's adjacently tagged enum, of which every type of parameters would be compiled three times.
        impl Request {
            pub fn method(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $method,)*
                }
            }

            /// The request in one line, without its newline.
            pub fn to_json(&self) -> serde_json::Result<String> {
                let method = self.method();
                match self {
                    $(Self::$variant(params) => serde_json::to_string(&Said { method, params }),)*
                }
            }

            /// Reads such a line.
            pub fn from_json(line: &[u8]) -> serde_json::Result<Self> {
                let heard: Heard<'_> = serde_json::from_slice(line)?;
                let params = heard.params.get();
                match &*heard.method {
                    $($method => serde_json::from_str(params).map(Self::$variant),)*
                    other => Err(serde_json::Error::custom(format_args!("unknown method {other:?}"))),
                }
            }
        }

        $(
            impl From<$variant> for Request {
                fn from(params: $variant) -> Self {
                    Self::$variant(params)
                }
            }
            impl Call for $variant {
                type Answer = $answer;
            }
        )*
    };
}

calls! {
    "daemon.status" DaemonStatus -> DaemonView;
    "daemon.doctor" DaemonDoctor -> Vec<Finding>;
    "daemon.mend" DaemonMend -> ();
    "daemon.stop" DaemonStop -> ();
    "daemon.operations.list" DaemonOperations -> Vec<OperationView>;
    "daemon.events" DaemonEvents -> ();
    "vm.create" VmCreate -> VmView;
    "vm.start" VmStart -> VmView;
    "vm.stop" VmStop -> VmView;
    "vm.set" VmSet -> VmView;
    "vm.delete" VmDelete -> ();
    "vm.list" VmList -> Vec<VmView>;
    "vm.show" VmShow -> VmView;
    "vm.exec" VmExec -> Option<Workspace>;
    "vm.read" VmRead -> ();
    "vm.write" VmWrite -> ();
    "vm.workspace.prepare" VmPrepare -> Held;
    "vm.workspace.changes" VmChanges -> Held;
    "vm.workspace.record" VmWorkspace -> VmView;
    "vm.ports" VmPorts -> Vec<PortView>;
    "vm.stats" VmStats -> StatsView;
    "vm.ping" VmPing -> PingView;
    "vm.health" VmHealth -> Vec<Finding>;
    "vm.logs" VmLogs -> Option<u64>;
    "image.pull" ImagePull -> ImageRecord;
    "image.import" ImageImport -> ImageRecord;
    "image.register" ImageRegister -> ImageRecord;
    "image.promote" ImagePromote -> ImageRecord;
    "image.list" ImageList -> Vec<ImageView>;
    "image.catalog" ImageCatalog -> Vec<ImageOffer>;
    "image.show" ImageShow -> ImageView;
    "image.tag" ImageTag -> ImageRecord;
    "image.delete" ImageDelete -> ();
    "image.cache.list" ImageCacheList -> Vec<BlobView>;
    "image.cache.prune" ImageCachePrune -> PrunedView;
    "kernel.import" KernelImport -> KernelView;
    "kernel.pull" KernelPull -> KernelView;
    "kernel.list" KernelList -> Vec<KernelView>;
    "kernel.catalog" KernelCatalog -> Vec<KernelOffer>;
    "kernel.show" KernelShow -> KernelView;
    "kernel.rm" KernelRemove -> ();
    "kernel.default" KernelDefault -> KernelView;
    "bundle.create" BundleCreate -> BundleView;
    "bundle.install" BundleInstall -> BundleView;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_it_was_when_it_is_read() {
        let request = Request::from(VmShow { vm: "a\"\n".to_owned() });
        let line = request.to_json().expect("serializes");
        assert_eq!(line, r#"{"method":"vm.show","params":{"vm":"a\"\n"}}"#);
        assert_eq!(Request::from_json(line.as_bytes()).expect("parses"), request);
        let turned = br#"{"params": {}, "method": "vm.list"}"#;
        assert_eq!(Request::from_json(turned).expect("parses").method(), "vm.list");
    }

    #[test]
    fn what_is_no_request_is_refused_with_why() {
        for (line, why) in [
            (r#"{"method":"vm.fly","params":{}}"#, "unknown method \"vm.fly\""),
            (r#"{"method":"vm.show","params":{}}"#, "missing field `vm` at line 1 column 2"),
            (r#"{"method":"vm.list"}"#, "missing field `params` at line 1 column 20"),
            ("", "EOF while parsing a value at line 1 column 0"),
        ] {
            assert_eq!(Request::from_json(line.as_bytes()).expect_err(line).to_string(), why);
        }
    }
}
