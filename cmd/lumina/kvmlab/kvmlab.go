// Package kvmlab has lumina's end-to-end tests run on KVM, on any Linux host: in a
// VM of lumina's own (recipes/kvm-host.yaml), whose emulated CPU has AMD's SVM,
// so that the VMs in it are run by KVM. It has tests only.
package kvmlab
