package disk

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// ovaOptions is what a description of a machine says of its disk.
type ovaOptions struct {
	name, disk     string
	file, capacity int64 // bytes: of the disk's file, of the disk
}

// ovfElement is a property of a piece of virtual hardware, as DMTF's schema
// CIM_ResourceAllocationSettingData names it.
type ovfElement struct{ name, value string }

// ovfVMware has VMware's own devices and EFI firmware.
func ovfVMware(o *ovaOptions) string {
	return ovf(o, "vmx-14", `      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
      <vmw:Config ovf:required="false" vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="false"/>
`, ovfElement{"6", "VirtualSCSI"}, "VmxNet3")
}

// ovfVirtualBox has what VirtualBox emulates fastest.
func ovfVirtualBox(o *ovaOptions) string {
	return ovf(o, "virtualbox-2.2", "", ovfElement{"20", "AHCI"}, "E1000")
}

// ovf describes a machine; controller is the type of the disk's, as a number, and its
// kind.
func ovf(o *ovaOptions, system, config string, controller ovfElement, nic string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:href=%s ovf:id="file1" ovf:size="%d"/>
  </References>
  <DiskSection>
    <Info>The disk</Info>
    <Disk ovf:capacity="%d" ovf:diskId="disk1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection>
    <Info>The network</Info>
    <Network ovf:name="VM Network">
      <Description>A network with DHCP</Description>
    </Network>
  </NetworkSection>
  <VirtualSystem ovf:id=%s>
    <Info>A virtual machine</Info>
    <Name>%s</Name>
    <OperatingSystemSection ovf:id="101" vmw:osType="otherLinux64Guest">
      <Info>Linux, 64 bits</Info>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>What it has</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemType>%s</vssd:VirtualSystemType>
      </System>
`, attribute(o.disk), o.file, o.capacity, attribute(o.name), text(o.name), system)
	for _, item := range [][]ovfElement{ // the schema wants elements in the order of their names
		{{"AllocationUnits", "hertz * 10^6"}, {"ElementName", "2 CPUs"}, {"InstanceID", "1"}, {"ResourceType", "3"}, {"VirtualQuantity", "2"}},
		{{"AllocationUnits", "byte * 2^20"}, {"ElementName", "1024 MB of memory"}, {"InstanceID", "2"}, {"ResourceType", "4"}, {"VirtualQuantity", "1024"}},
		{{"Address", "0"}, {"ElementName", "Disk controller 0"}, {"InstanceID", "3"}, {"ResourceSubType", controller.value}, {"ResourceType", controller.name}},
		{{"AddressOnParent", "0"}, {"ElementName", "Disk 1"}, {"HostResource", "ovf:/disk/disk1"}, {"InstanceID", "4"}, {"Parent", "3"}, {"ResourceType", "17"}},
		{{"AddressOnParent", "7"}, {"AutomaticAllocation", "true"}, {"Connection", "VM Network"}, {"ElementName", "Network adapter 1"}, {"InstanceID", "5"},
			{"ResourceSubType", nic}, {"ResourceType", "10"}},
	} {
		b.WriteString("      <Item>\n")
		for _, e := range item {
			fmt.Fprintf(&b, "        <rasd:%s>%s</rasd:%[1]s>\n", e.name, e.value)
		}
		b.WriteString("      </Item>\n")
	}
	b.WriteString(config + "    </VirtualHardwareSection>\n  </VirtualSystem>\n</Envelope>\n")
	return b.String()
}

func text(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}

func attribute(s string) string { return `"` + text(s) + `"` }
