package csitest

import (
	"strings"

	"k8s.io/mount-utils"
)

// Below are the mount points below a folder.
func Below(folder string) []string {
	all, err := mount.ParseMountInfo("/proc/self/mountinfo")
	if err != nil {
		panic(err) // no test can go on
	}
	var points []string
	for _, m := range all {
		if strings.HasPrefix(m.MountPoint, folder+"/") {
			points = append(points, m.MountPoint)
		}
	}
	return points
}

func mounted(path string) bool {
	for _, point := range Below(path[:strings.LastIndexByte(path, '/')]) {
		if point == path {
			return true
		}
	}
	return false
}
