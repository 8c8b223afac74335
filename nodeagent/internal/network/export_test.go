package network

var Apart = apart
