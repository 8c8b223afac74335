package ossfs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// option is one option of a helper, value empty where it has none.
type option struct{ name, value string }

func (o option) String() string {
	if o.value == "" {
		return o.name
	}
	return o.name + "=" + o.value
}

// allowed are the options that a volume may set: those that tune how a bucket is seen
// and asked. Not a list of what is forbidden: helpers run as root on the machine, and
// the next version may have another option that names a file to write, a library to
// load or a program to run. They are the union of ossfs's and s3fs's manuals, and of
// FUSE's own (mount.fuse(8)).
var allowed = words(`
	allow_other default_permissions uid gid umask mp_umask complement_stat
	ro rw noatime noexec nosuid nodev
	kernel_cache auto_cache direct_io attr_timeout entry_timeout negative_timeout ac_attr_timeout
	max_read max_write max_readahead max_background congestion_threshold big_writes async_read sync_read
	atomic_o_trunc hard_remove intr nonempty
	max_stat_cache_size stat_cache_expire stat_cache_interval_expire
	enable_noobj_cache disable_noobj_cache nodnscache nosscache
	multireq_max parallel_count multipart_size multipart_copy_size multipart_threshold
	singlepart_copy_limit max_dirty_data ensure_diskfree free_space_ratio
	list_object_max_keys listobjectsv2 retries connect_timeout readwrite_timeout max_thread_count
	nomultipart nomixupload nocopyapi norenameapi noxmlns noua use_xattr use_wtf8
	compat_dir notsup_compat_dir update_parent_dir_stat readdir_optimize readdir_check_size symlink_in_meta
	direct_read direct_read_prefetch_chunks direct_read_chunk_size direct_read_prefetch_limit
	direct_read_backward_chunks direct_read_local_file_cache_size_mb
	enable_content_md5 enable_unsigned_payload default_acl acl storage_class use_rrs requester_pays
	sigv1 sigv2 sigv4 endpoint region use_path_request_style
	no_check_certificate ssl_verify_hostname cipher_suites instance_name
`)

// ours are options that the agent sets, with what decides them instead.
var ours = map[string]string{
	"url": attributeURL, "host": attributeURL, "servicepath": attributeURL, "bucket": attributeBucket,
	"passwd_file": "nodePublishSecretRef", "public_bucket": "nodePublishSecretRef",
}

// caching are options that ask for a cache on the machine's disk. Where it lies, and how
// much of it there may be, the machine decides: they are taken out of the others.
var caching = words("use_cache del_cache check_cache_dir_exist")

// room are options that say how much of the disk a helper leaves free.
var room = words("ensure_diskfree free_space_ratio")

func words(text string) map[string]bool {
	set := map[string]bool{}
	for _, w := range strings.Fields(text) {
		set[w] = true
	}
	return set
}

// readOptions reads options as they stand on a command line: "-o a=1 -ob,c".
func readOptions(text string) ([]option, error) {
	var all []option
	var wrong []error
	fields := strings.Fields(text)
	for i := 0; i < len(fields); i++ {
		list, is := strings.CutPrefix(fields[i], "-o")
		if !is {
			wrong = append(wrong, fmt.Errorf("%q is not an option: write -o NAME[=VALUE]", name(fields[i])))
			continue
		}
		if list == "" {
			if i++; i == len(fields) {
				wrong = append(wrong, errors.New("nothing follows the last -o"))
				break
			}
			list = fields[i]
		}
		read, err := readList(list)
		all, wrong = append(all, read...), append(wrong, err)
	}
	return all, errors.Join(wrong...)
}

// readMountOptions reads the list of a PersistentVolume, in which -o may stand or not.
func readMountOptions(list []string) ([]option, error) {
	var all []option
	var wrong []error
	for _, text := range list {
		text = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), "-o"))
		read, err := readList(text)
		all, wrong = append(all, read...), append(wrong, err)
	}
	return all, errors.Join(wrong...)
}

// readList reads what stands between commas.
func readList(list string) ([]option, error) {
	var all []option
	var wrong []error
	for text := range strings.SplitSeq(list, ",") {
		o := option{}
		o.name, o.value, _ = strings.Cut(text, "=")
		switch instead, mine := ours[o.name]; {
		case text == "":
		case mine:
			wrong = append(wrong, fmt.Errorf("%s can't be set here: %s decides it", o.name, instead))
		case !allowed[o.name] && !caching[o.name]:
			wrong = append(wrong, fmt.Errorf("%q can't be set on AI nodes: leave it out", name(o.name)))
		case strings.ContainsAny(o.value, `\'"`) || strings.ContainsFunc(o.value, isControl):
			wrong = append(wrong, fmt.Errorf("the value of %s holds a quote, a backslash or a control character", o.name))
		default:
			all = append(all, o)
		}
	}
	return all, errors.Join(wrong...)
}

// name is what of a text may be told: what follows a "=" may be a key.
func name(text string) string {
	before, _, _ := strings.Cut(text, "=")
	return before
}

func has(options []option, names ...string) bool {
	return slices.ContainsFunc(options, func(o option) bool { return slices.Contains(names, o.name) })
}
