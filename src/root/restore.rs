//! Carries out what [`super::reconcile`] has planned, and keeps the firewall where others flush it.

use crate::root::error::{RootError, chain};
use crate::root::perform::Root;
use crate::root::reconcile::{Have, Step, plan};
use crate::root::records::Record;
use crate::root::wires;

impl Root {
    /// Removes what no record claims, and makes again what is claimed and missing.
    ///
    /// # Errors
    /// The first of what could not be done; the rest was done all the same.
    pub fn reconcile(&self) -> Result<(), RootError> {
        let _network = self.network();
        let have = Have {
            bridge: wires::bridge_is(&self.ground)?,
            taps: wires::taps()?,
            firewall: wires::is_loaded()?,
            jails: self.jails()?.into_iter().collect(),
        };
        let steps = plan(&self.records.exists().clone(), &have);
        let mut first = None;
        for step in steps {
            log::info!("reconcile: {step}");
            if let Err(e) = self.carry_out(step) {
                log::error!("{}", chain(&e));
                first = first.or(Some(e));
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Loads what of the firewall is gone; whether anything was.
    pub fn mend_firewall(&self) -> Result<bool, RootError> {
        let _network = self.network();
        let exists = self.records.exists().clone();
        exists.bridge.map_or(Ok(false), |bridge| wires::mend(&bridge, &exists))
    }

    fn carry_out(&self, step: Step) -> Result<(), RootError> {
        match step {
            Step::RemoveJail(vm) => self.remove_jail(vm, None),
            Step::DeleteTap(tap) => wires::delete_tap(tap.vm()),
            Step::Forget(vm) => self.records.remove(vm).map_err(RootError::effect(format!("forget VM {vm}"))),
            Step::Settle(vm) => {
                let record = self.record(vm)?;
                self.write(&Record { doing: None, processes: None, ..record })
            }
            Step::RestoreBridge => {
                let bridge = self.bridge()?;
                wires::ensure_bridge(&self.ground, bridge.subnet)?;
                wires::enable_forwarding(&self.ground)
            }
            Step::RestoreTap(vm) => {
                let record = self.record(vm)?;
                wires::create_tap(&self.bridge()?, &record, self.user(record.port))
            }
            Step::LoadFirewall => {
                let (bridge, exists) = (self.bridge()?, self.records.exists().clone());
                wires::load(&bridge, &exists)
            }
            Step::UnloadFirewall => wires::unload(),
        }
    }
}
