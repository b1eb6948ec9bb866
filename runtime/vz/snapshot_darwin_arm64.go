//go:build cgo

package vz

func (m *appleMachine) supportsSave() error {
	_, err := m.config.ValidateSaveRestoreSupport()
	return err
}

func (m *appleMachine) save(path string) error { return m.vm.SaveMachineStateToPath(path) }
func (m *appleMachine) restore(path string) error {
	return asLocked(m.vm.RestoreMachineStateFromURL(path), m.paths)
}
