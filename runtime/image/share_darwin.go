package image

import "os"

func shareEqualBlocks(_, _ *os.File, _ int64) {}

func sharedExtents(*os.File) []extent { return nil }
