// Package fat writes FAT32 file systems, and reads those of FAT12, FAT16 and FAT32
// (Microsoft's "FAT File System Specification"; ECMA-107).
package fat
