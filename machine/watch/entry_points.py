"""The functions by which popular libraries reach files and services in C, where Python announces nothing.

This is a table, and nothing is called or imported here. `watch.entry_point_hooks` puts a hook before each function
once its library is loaded; `watch.library_uses` says which calls of it count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from machine.watch import library_uses as uses
from machine.watch.library_uses import Judge


@attrs.frozen
class EntryPoint:
    """One function of a library.

    `path` leads to it from the loaded `module`, `judge` says what a call does, and `name` is its name in messages
    and in the `allow` of a golden. With `client`, `Plan(clients=[client])` records what it does.
    """

    library: str
    module: str
    path: str
    name: str
    judge: Judge
    client: str | None = None
    sees_caller: bool = False
    """True when the function looks at the variables of its caller, so that no frame may come between them."""


def _each(
    library: str,
    names: str,
    judge: Judge,
    *,
    public: str | None = None,
    client: str | None = None,
    sees_caller: bool = False,
) -> Iterator[EntryPoint]:
    """Yield the entry points of a module; `public` is the module in their names, if that is another one."""
    module, _, paths = names.partition(": ")
    for path in paths.split():
        name = f"{public or module}.{_public(path)}"
        yield EntryPoint(library, module, path, name, judge, client, sees_caller)


def _public(path: str) -> str:
    """Return the path of a function without what is private in it."""
    *classes, last = path.split(".")
    parts = [each.lstrip("_") for each in classes]
    return ".".join(parts if parts and last.startswith("_") else [*parts, last.lstrip("_")])


_DATABASE: Final = uses.sends("uses a database")
_SERVICE: Final = uses.sends("calls a service of gRPC")
_REQUEST: Final = uses.sends("sends a request")

ENTRY_POINTS: Final[tuple[EntryPoint, ...]] = (
    # databases
    *_each(
        "psycopg",
        "psycopg.generators: connect",
        uses.sends("connects to a database"),
        client="psycopg",
        public="psycopg",
    ),
    *_each("psycopg", "psycopg: Connection.wait AsyncConnection.wait", _DATABASE, client="psycopg"),
    *_each("psycopg2", "psycopg2: _connect", uses.sends("connects to a database")),
    *_each(
        "psycopg2",
        "psycopg2.extensions: cursor.execute cursor.executemany cursor.callproc cursor.copy_from cursor.copy_to "
        "cursor.copy_expert connection.commit",
        _DATABASE,
        public="psycopg2",
    ),
    *_each(
        "asyncpg", "asyncpg.connect_utils: _connect", uses.sends("connects to a database"), public="asyncpg"
    ),
    *_each(
        "asyncpg",
        "asyncpg.connection: Connection.execute Connection.executemany Connection._execute Connection._copy_in "
        "Connection._copy_out",
        _DATABASE,
        public="asyncpg",
    ),
    *_each("oracledb", "oracledb: connect connect_async", uses.sends("connects to a database")),
    *_each("oracledb", "oracledb.cursor: Cursor.execute Cursor.executemany", _DATABASE, public="oracledb"),
    *_each("pymongo", "pymongo.synchronous.topology: Topology.select_servers", _DATABASE, public="pymongo"),
    *_each("pymongo", "pymongo.asynchronous.topology: Topology.select_servers", _DATABASE, public="pymongo"),
    *_each("duckdb", "duckdb: connect", uses.duckdb_connect, client="duckdb"),
    *_each(
        "duckdb",
        "duckdb: execute executemany sql query from_query "
        "DuckDBPyConnection.execute DuckDBPyConnection.executemany DuckDBPyConnection.sql "
        "DuckDBPyConnection.query DuckDBPyConnection.from_query",
        uses.duckdb_statement,
        client="duckdb",
        sees_caller=True,
    ),
    *_each(
        "duckdb",
        "duckdb: read_csv from_csv_auto read_json read_parquet from_parquet "
        "DuckDBPyConnection.read_csv DuckDBPyConnection.from_csv_auto DuckDBPyConnection.read_json "
        "DuckDBPyConnection.read_parquet DuckDBPyConnection.from_parquet",
        uses.reads_any,
    ),
    *_each(
        "duckdb",
        "duckdb: DuckDBPyRelation.write_csv DuckDBPyRelation.to_csv DuckDBPyRelation.write_parquet "
        "DuckDBPyRelation.to_parquet",
        uses.writes(1),
    ),
    *_each("lmdb", "lmdb: open Environment.begin", uses.lmdb_environment),
    *_each(
        "apsw",
        "apsw: Connection Connection.execute Connection.executemany Cursor.execute Cursor.executemany",
        uses.apsw_statement,
    ),
    *_each(
        "sqlalchemy",
        "sqlalchemy.engine.default: DefaultDialect.connect DefaultDialect.do_execute DefaultDialect.do_executemany "
        "DefaultDialect.do_execute_no_params",
        uses.sqlalchemy_dialect,
        client="sqlalchemy",
        public="sqlalchemy",
    ),
    *_each("adbc-driver-manager", "adbc_driver_manager.dbapi: connect", uses.sends("connects to a database")),
    *_each("adbc-driver-manager", "adbc_driver_manager.dbapi: Cursor.execute Cursor.executemany", _DATABASE),
    # services
    *_each(
        "grpcio",
        "grpc._channel: _UnaryUnaryMultiCallable._blocking _UnaryUnaryMultiCallable.future "
        "_SingleThreadedUnaryStreamMultiCallable.__call__ _UnaryStreamMultiCallable.__call__ "
        "_StreamUnaryMultiCallable._blocking _StreamUnaryMultiCallable.future _StreamStreamMultiCallable.__call__",
        _SERVICE,
        client="grpc",
        public="grpc",
    ),
    *_each(
        "grpcio",
        "grpc.aio._call: UnaryUnaryCall.__init__ UnaryStreamCall.__init__ StreamUnaryCall.__init__ "
        "StreamStreamCall.__init__",
        _SERVICE,
        client="grpc",
        public="grpc.aio",
    ),
    *_each("curl_cffi", "curl_cffi.curl: Curl.perform Curl.ws_send", _REQUEST, public="curl_cffi"),
    *_each("curl_cffi", "curl_cffi.aio: AsyncCurl.add_handle", _REQUEST, public="curl_cffi"),
    *_each(
        "pycurl",
        "pycurl: Curl.perform Curl.perform_rb Curl.perform_rs Curl.send CurlMulti.perform "
        "CurlMulti.socket_action",
        _REQUEST,
    ),
    *_each(
        "primp",
        "primp: get head options delete post put patch request Client.get Client.head Client.options Client.delete "
        "Client.post Client.put Client.patch Client.request AsyncClient.get AsyncClient.head AsyncClient.options "
        "AsyncClient.delete AsyncClient.post AsyncClient.put AsyncClient.patch AsyncClient.request",
        _REQUEST,
    ),
    *_each(
        "confluent-kafka",
        "confluent_kafka.cimpl: Producer.produce Producer.poll Producer.flush Consumer.subscribe Consumer.poll "
        "Consumer.consume Consumer.commit",
        uses.sends("uses a broker of Kafka"),
        public="confluent_kafka",
    ),
    *_each(
        "obstore",
        "obstore: get get_async get_range get_range_async get_ranges get_ranges_async head head_async list "
        "list_with_delimiter list_with_delimiter_async open_reader open_reader_async",
        uses.object_store(reading=True),
    ),
    *_each(
        "obstore",
        "obstore: put put_async delete delete_async copy copy_async rename rename_async open_writer "
        "open_writer_async",
        uses.object_store(reading=False),
    ),
    *_each(
        "pyzmq",
        "zmq.sugar.socket: Socket.bind Socket.connect Socket.send",
        uses.sends("uses a socket"),
        public="zmq",
    ),
    *_each(
        "uvloop",
        "uvloop: Loop.create_connection Loop.create_unix_connection Loop.create_datagram_endpoint "
        "Loop.create_server Loop.create_unix_server Loop.sock_connect",
        uses.sends("opens a connection"),
    ),
    *_each("uvloop", "uvloop: Loop.getaddrinfo Loop.getnameinfo", uses.sends("looks up an address")),
    *_each("uvloop", "uvloop: Loop.subprocess_exec Loop.subprocess_shell", uses.sends("starts a program")),
    # tables of data
    *_each("numpy", "numpy: load loadtxt genfromtxt fromregex", uses.reads(0)),
    *_each("numpy", "numpy: memmap.__new__", uses.reads(1)),
    *_each(
        "pandas",
        "pandas: read_csv read_table read_fwf read_json read_excel read_pickle read_parquet read_feather read_orc "
        "read_xml read_html read_hdf read_stata read_sas read_spss",
        uses.reads(0),
    ),
    *_each("pandas", "pandas: ExcelFile.__init__", uses.reads(1)),
    *_each("pandas", "pandas: DataFrame.to_parquet DataFrame.to_hdf", uses.writes(1)),
    *_each("pandas", "pandas: HDFStore.__init__", uses.opens(1, 2, default="a")),
    *_each("pandas", "pandas: read_sql read_sql_query", uses.sqlite_connection(1, "con")),
    *_each("pandas", "pandas: DataFrame.to_sql", uses.sqlite_connection(2, "con")),
    *_each(
        "polars",
        "polars: read_csv read_parquet read_ipc read_ipc_stream read_json read_ndjson read_avro read_excel "
        "read_ods read_delta scan_csv scan_parquet scan_ipc scan_ndjson scan_delta scan_iceberg",
        uses.reads(0),
    ),
    *_each("polars", "polars: read_database_uri", uses.sends("asks a database")),
    *_each("polars", "polars: LazyFrame.collect LazyFrame.collect_async", uses.polars_plan),
    *_each(
        "polars",
        "polars: DataFrame.write_csv DataFrame.write_parquet DataFrame.write_ipc DataFrame.write_ipc_stream "
        "DataFrame.write_json DataFrame.write_ndjson DataFrame.write_avro DataFrame.write_excel "
        "DataFrame.write_delta LazyFrame.sink_csv LazyFrame.sink_parquet LazyFrame.sink_ipc LazyFrame.sink_ndjson",
        uses.writes(1),
    ),
    *_each("pyarrow", "pyarrow: input_stream", uses.reads(0)),
    *_each("pyarrow", "pyarrow: OSFile output_stream create_memory_map", uses.writes(0)),
    *_each("pyarrow", "pyarrow: memory_map", uses.opens(0, 1)),
    *_each("pyarrow", "pyarrow.csv: read_csv open_csv", uses.reads(0)),
    *_each("pyarrow", "pyarrow.csv: write_csv", uses.writes(1)),
    *_each("pyarrow", "pyarrow.json: read_json open_json", uses.reads(0)),
    *_each("pyarrow", "pyarrow.feather: read_table read_feather", uses.reads(0)),
    *_each("pyarrow", "pyarrow.feather: write_feather", uses.writes(1)),
    *_each("pyarrow", "pyarrow.orc: read_table", uses.reads(0)),
    *_each("pyarrow", "pyarrow.orc: ORCFile.__init__", uses.reads(1)),
    *_each("pyarrow", "pyarrow.orc: write_table ORCWriter.__init__", uses.writes(1)),
    *_each(
        "pyarrow",
        "pyarrow.parquet.core: read_table read_schema read_metadata",
        uses.reads(0),
        public="pyarrow.parquet",
    ),
    *_each(
        "pyarrow",
        "pyarrow.parquet.core: ParquetFile.__init__ ParquetDataset.__init__",
        uses.reads(1),
        public="pyarrow.parquet",
    ),
    *_each(
        "pyarrow",
        "pyarrow.parquet.core: write_table write_to_dataset write_metadata ParquetWriter.__init__",
        uses.writes(1),
        public="pyarrow.parquet",
    ),
    *_each("pyarrow", "pyarrow.dataset: dataset parquet_dataset", uses.reads(0)),
    *_each("pyarrow", "pyarrow.dataset: write_dataset", uses.writes(1)),
    *_each(
        "pyarrow",
        "pyarrow.fs: FileSystem.get_file_info FileSystem.open_input_file FileSystem.open_input_stream",
        uses.arrow_reads,
    ),
    *_each(
        "pyarrow",
        "pyarrow.fs: FileSystem.open_output_stream FileSystem.open_append_stream FileSystem.create_dir "
        "FileSystem.delete_dir FileSystem.delete_dir_contents FileSystem.delete_file FileSystem.copy_file "
        "FileSystem.move",
        uses.writes(1),
    ),
    *_each("pyarrow", "pyarrow.fs: copy_files", uses.writes(1)),
    *_each(
        "pyarrow",
        "pyarrow.flight: FlightClient.do_get FlightClient.do_put FlightClient.do_action FlightClient.do_exchange "
        "FlightClient.get_flight_info FlightClient.get_schema FlightClient.list_flights "
        "FlightClient.list_actions FlightClient.authenticate FlightClient.wait_for_available",
        uses.sends("calls a service of Arrow Flight"),
    ),
    *_each("h5py", "h5py: File.__init__", uses.opens(1, 2)),
    *_each("netCDF4", "netCDF4: Dataset.__init__", uses.opens(1, 2)),
    *_each("tables", "tables: open_file", uses.opens(0, 1)),
    *_each("tables", "tables: File.__init__", uses.opens(1, 2)),
    *_each("deltalake", "deltalake: DeltaTable.__init__", uses.reads(1)),
    *_each(
        "deltalake",
        "deltalake: write_deltalake DeltaTable.create DeltaTable.update DeltaTable.merge DeltaTable.delete "
        "DeltaTable.vacuum DeltaTable.restore",
        uses.sends("changes a table"),
    ),
    *_each("openpyxl", "openpyxl: load_workbook", uses.reads(0)),
    # documents and pictures
    *_each("lxml", "lxml.etree: parse", uses.reads(0)),
    *_each("lxml", "lxml.etree: _ElementTree.parse", uses.reads(1)),
    *_each("lxml", "lxml.etree: _ElementTree.write _ElementTree.write_c14n", uses.writes(1)),
    *_each("lxml", "lxml.etree: xmlfile", uses.writes(0)),
    *_each("lxml", "lxml.html: parse", uses.reads(0)),
    *_each("lxml", "lxml.objectify: parse", uses.reads(0)),
    *_each("pillow", "PIL.Image: open", uses.reads(0)),
    *_each("rasterio", "rasterio: open", uses.opens(0, 1)),
    *_each("pyogrio", "pyogrio: read_dataframe read_arrow read_info read_bounds list_layers", uses.reads(0)),
    *_each("pyogrio", "pyogrio: write_dataframe write_arrow", uses.writes(1)),
    *_each("soundfile", "soundfile: read blocks info", uses.reads(0)),
    *_each("soundfile", "soundfile: write", uses.writes(0)),
    *_each("soundfile", "soundfile: SoundFile.__init__", uses.opens(1, 2)),
    *_each("safetensors", "safetensors: safe_open", uses.reads(0)),
    *_each("safetensors", "safetensors.numpy: load_file", uses.reads(0)),
    *_each("safetensors", "safetensors.numpy: save_file", uses.writes(1)),
    *_each("opencv-python", "cv2: imread imreadmulti imcount", uses.reads(0)),
    *_each("opencv-python", "cv2: imwrite imwritemulti", uses.writes(0)),
    *_each("opencv-python", "cv2: VideoCapture.__init__ VideoCapture.open", uses.camera),
    *_each("opencv-python", "cv2: VideoWriter.__init__ VideoWriter.open", uses.writes(1)),
)
"""The entry points to hook, by library."""
