/* The installed pyrunc command: it loads pyrunc.so (the interpreter, embedded) and leaves everything to it.
 *
 * Why not a script: an embedded interpreter starts in half the time of `python3 -IS` (measured in install/README.md).
 * Why two files: the program that a container's first process briefly is must be protected from that container, by
 * exchanging its mappings or copying it (CVE-2019-5736), and this one is a few pages instead of seven megabytes.
 *
 * If pyrunc.so does not load, or if the distribution has updated Python since it was built, a script takes over, run by
 * the distribution's interpreter: slower, never less.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct stamp {
	off_t size;
	time_t changed;
};

static int is_current(void)
{
	static const struct stamp built = { PYRUNC_STAMP };
	struct stat now;

	return stat(PYRUNC_PYTHON, &now) == 0 && now.st_size == built.size && now.st_mtime == built.changed;
}

int main(int argc, char **argv)
{
	void *library = is_current() ? dlopen(PYRUNC_LIBRARY, RTLD_NOW | RTLD_GLOBAL) : NULL;

	if (library) {
		int (*run)(int, char **) = (int (*)(int, char **))dlsym(library, "pyrunc_main");
		if (run)
			return run(argc, argv);
	}
	execv(PYRUNC_SCRIPT, argv);
	perror(PYRUNC_SCRIPT);
	return 1;
}
