package runtime

import _ "github.com/abdul-abdi/lumina/runtime/qemu" // this system's driver
