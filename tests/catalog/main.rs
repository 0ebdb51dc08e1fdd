//! Catalogs and bundles from a server on 127.0.0.1: what is trusted, what is kept, what is pulled, and what is left of it when
//! something is wrong. Through the built program with a daemon of its own; nothing here boots.

mod available;
mod bundles;
mod images;
mod kernels;
mod make;
mod new_vm;
mod support;
mod trust;
