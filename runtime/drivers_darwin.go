package runtime

import _ "github.com/abdul-abdi/lumina/runtime/vz" // this system's VM driver
