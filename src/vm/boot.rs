//! What a guest is told on its kernel command line: words that begin with `banger.`, written by the host and read by /init.
//!
//! The kernel passes words that it does not know, with a dot in them, to nobody, and shows them in /proc/cmdline
//! (kernel: admin-guide/kernel-parameters). They hold what /init needs before it can speak over vsock, and no secrets.

use std::fmt;
use std::net::Ipv4Addr;

use crate::vm::id::VmId;
use crate::vm::name::VmName;

/// Everything that /init must know to bring the guest up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    pub id: VmId,
    pub name: VmName,
    pub root: Root,
    /// The block device with the kernel's modules, an ext4 file system, e.g. `vdc`.
    pub modules: Option<String>,
    pub net: Option<Net>,
    /// The vsock port of the host (CID 2) to which the guest connects once it is ready.
    pub ready_port: u32,
    pub halt: Halt,
}

/// How the root file system comes to be (DESIGN D2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// A device-mapper snapshot of the read-only device `base` on the device `cow`, `sectors` of 512 bytes long: what lies
    /// behind the end of `base` reads as zeros.
    Snapshot { base: String, cow: String, sectors: u64 },
    /// A device that is the VM's own and may be written.
    Plain { device: String },
}

/// The guest's address on its one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Net {
    pub address: Ipv4Addr,
    /// Bits of the network's prefix, 0 to 32.
    pub prefix: u8,
    pub gateway: Ipv4Addr,
    pub dns: Vec<Ipv4Addr>,
}

/// What ends this VMM: Firecracker ends when the guest resets, QEMU when it powers off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    PowerOff,
    Reboot,
}

/// The command line lacks a word or has one that does not parse; the payload is the word's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadBoot(&'static str);

/// The words, in a fixed order, separated by spaces.
impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "banger.id={} banger.name={}", self.id, self.name)?;
        match &self.root {
            Root::Snapshot { base, cow, sectors } => {
                write!(f, " banger.root=snapshot:{base}:{cow}:{sectors}")?
            }
            Root::Plain { device } => write!(f, " banger.root=plain:{device}")?,
        }
        if let Some(device) = &self.modules {
            write!(f, " banger.modules={device}")?;
        }
        if let Some(net) = &self.net {
            write!(f, " banger.net={}/{},{}", net.address, net.prefix, net.gateway)?;
            for server in &net.dns {
                write!(f, " banger.dns={server}")?;
            }
        }
        let halt = match self.halt {
            Halt::PowerOff => "poweroff",
            Halt::Reboot => "reboot",
        };
        write!(f, " banger.ready={} banger.halt={halt}", self.ready_port)
    }
}

impl Boot {
    /// Reads the words back from a whole kernel command line; other words are ignored, the last of a repeated one wins.
    ///
    /// # Errors
    /// [`BadBoot`] names the first word that is missing or malformed.
    pub fn parse(cmdline: &str) -> Result<Self, BadBoot> {
        let all = |key: &'static str| cmdline.split_whitespace().filter_map(move |word| value(word, key));
        let last = |key: &'static str| all(key).next_back();
        let need = |key: &'static str| last(key).ok_or(BadBoot(key));
        let net = match last("banger.net") {
            None => None,
            Some(text) => {
                let dns: Option<Vec<Ipv4Addr>> = all("banger.dns").map(|s| s.parse().ok()).collect();
                let (address, prefix, gateway) = parse_net(text).ok_or(BadBoot("banger.net"))?;
                Some(Net { address, prefix, gateway, dns: dns.ok_or(BadBoot("banger.dns"))? })
            }
        };
        Ok(Self {
            id: need("banger.id")?.parse().map_err(|_| BadBoot("banger.id"))?,
            name: need("banger.name")?.parse().map_err(|_| BadBoot("banger.name"))?,
            root: parse_root(need("banger.root")?).ok_or(BadBoot("banger.root"))?,
            modules: last("banger.modules")
                .map(|d| device(d).ok_or(BadBoot("banger.modules")))
                .transpose()?,
            net,
            ready_port: need("banger.ready")?.parse().map_err(|_| BadBoot("banger.ready"))?,
            halt: match need("banger.halt")? {
                "poweroff" => Halt::PowerOff,
                "reboot" => Halt::Reboot,
                _ => return Err(BadBoot("banger.halt")),
            },
        })
    }
}

/// Further words, for an image whose init is systemd; others ignore them (systemd: kernel-command-line(7)).
pub fn systemd_words(id: VmId) -> String {
    format!(
        "systemd.machine_id={} systemd.firstboot=off systemd.mask=serial-getty@ttyS0.service \
         systemd.mask=systemd-networkd-wait-online.service systemd.mask=NetworkManager-wait-online.service",
        id.machine_id()
    )
}

fn value<'a>(word: &'a str, key: &str) -> Option<&'a str> {
    word.strip_prefix(key)?.strip_prefix('=')
}

/// A block device's name below /dev: letters and digits, so that it can be no path.
fn device(s: &str) -> Option<String> {
    (!s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric())).then(|| s.to_owned())
}

fn parse_root(text: &str) -> Option<Root> {
    match text.split(':').collect::<Vec<_>>()[..] {
        ["snapshot", base, cow, sectors] => {
            Some(Root::Snapshot { base: device(base)?, cow: device(cow)?, sectors: sectors.parse().ok()? })
        }
        ["plain", name] => Some(Root::Plain { device: device(name)? }),
        _ => None,
    }
}

fn parse_net(text: &str) -> Option<(Ipv4Addr, u8, Ipv4Addr)> {
    let (cidr, gateway) = text.split_once(',')?;
    let (address, prefix) = cidr.split_once('/')?;
    let prefix = prefix.parse().ok().filter(|p| *p <= 32)?;
    Some((address.parse().ok()?, prefix, gateway.parse().ok()?))
}

impl fmt::Display for BadBoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel command line has no valid {}", self.0)
    }
}

impl std::error::Error for BadBoot {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_boot() -> impl Strategy<Value = Boot> {
        let root = prop_oneof![
            ("[a-z0-9]{1,8}", "[a-z0-9]{1,8}", any::<u64>())
                .prop_map(|(base, cow, sectors)| Root::Snapshot { base, cow, sectors }),
            "[a-z0-9]{1,8}".prop_map(|device| Root::Plain { device }),
        ];
        let net = (any::<u32>(), 0u8..=32, any::<u32>(), prop::collection::vec(any::<u32>(), 0..3)).prop_map(
            |(address, prefix, gateway, dns)| Net {
                address: address.into(),
                prefix,
                gateway: gateway.into(),
                dns: dns.into_iter().map(Ipv4Addr::from).collect(),
            },
        );
        (
            any::<u64>(),
            "[a-z][a-z0-9]{0,9}",
            root,
            prop::option::of("[a-z]{3}"),
            prop::option::of(net),
            any::<u32>(),
            any::<bool>(),
        )
            .prop_map(|(id, name, root, modules, net, ready_port, off)| Boot {
                id: VmId::from_random(id),
                name: name.parse().expect("a name"),
                root,
                modules,
                net,
                ready_port,
                halt: if off { Halt::PowerOff } else { Halt::Reboot },
            })
    }

    proptest! {
        #[test]
        fn what_the_host_writes_the_guest_reads(boot in any_boot()) {
            let line = format!("console=ttyS0 quiet {boot} systemd.mask=x");
            prop_assert_eq!(Boot::parse(&line), Ok(boot));
        }

        #[test]
        fn no_command_line_makes_the_parser_panic(line in ".{0,200}") {
            let _ = Boot::parse(&line);
        }
    }

    #[test]
    fn a_device_name_cannot_be_a_path() {
        let line = "banger.id=0123456789ab banger.name=dev banger.root=plain:../sda banger.ready=1 banger.halt=reboot";
        assert_eq!(Boot::parse(line), Err(BadBoot("banger.root")));
    }
}
