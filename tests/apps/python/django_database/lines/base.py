"""A database backend of Django's: a line is asked, a line is answered. What matters is the connection, which Django keeps."""

import socket

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.dummy.base import DatabaseWrapper as Dummy


class Cursor:
    def __init__(self, connection):
        self.connection = connection

    def execute(self, query, parameters=None):
        self.connection.sock.sendall(query.encode() + b"\n")
        self.answer = self.connection.file.readline().strip().decode()

    def fetchone(self):
        return (self.answer,)

    def close(self):
        pass


class Connection:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.file = self.sock.makefile("rb")

    def close(self):
        self.file.close()
        self.sock.close()

    def commit(self):
        pass

    rollback = commit


class Error(Exception):
    pass


class Database:
    DataError = OperationalError = IntegrityError = InternalError = ProgrammingError = Error
    NotSupportedError = DatabaseError = InterfaceError = Error
    Error = Error


class DatabaseWrapper(Dummy):
    Database = Database
    vendor = "lines"

    def get_connection_params(self):
        return {"path": self.settings_dict["NAME"]}

    def get_new_connection(self, parameters):
        return Connection(**parameters)

    def init_connection_state(self):
        pass

    def create_cursor(self, name=None):
        return Cursor(self.connection)

    def _set_autocommit(self, autocommit):
        pass

    def is_usable(self):
        return True

    def _close(self):
        if self.connection is not None:
            self.connection.close()

    _cursor = BaseDatabaseWrapper._cursor
    ensure_connection = BaseDatabaseWrapper.ensure_connection
