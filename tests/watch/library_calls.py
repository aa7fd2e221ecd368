"""Calls of the functions of `machine.watch.entry_points`, by name: what a handler may do with each library."""

# A method must be looked up when it is called, and names are many: so lambdas and split texts.
# ruff: noqa: PLW0108

from __future__ import annotations

import io
import sqlite3
from pathlib import Path

NOWHERE = "127.0.0.1:9"
CLOSING = []
"""The functions that close what the calls keep open."""


def of_numpy(numpy):
    numpy.save("there.npy", numpy.arange(3))
    numpy.savetxt("there.txt", numpy.arange(3))
    return {
        "numpy.load": lambda: numpy.load("there.npy"),
        "numpy.loadtxt": lambda: numpy.loadtxt("there.txt"),
        "numpy.genfromtxt": lambda: numpy.genfromtxt("there.txt"),
        "numpy.fromregex": lambda: numpy.fromregex("there.txt", r"(\d)", [("a", int)]),
        "numpy.memmap": lambda: numpy.memmap("there.txt", mode="r"),
    }


def of_pandas(pandas):
    frame = pandas.DataFrame({"a": [1]})
    with sqlite3.connect("there.db", check_same_thread=False) as database:
        database.execute("create table t (a)")
    CLOSING.append(database.close)
    reading = [
        "csv",
        "table",
        "fwf",
        "json",
        "excel",
        "pickle",
        "parquet",
        "feather",
        "orc",
        "xml",
        "html",
        "hdf",
        "stata",
        "sas",
        "spss",
    ]
    read = {
        f"pandas.read_{kind}": lambda kind=kind: getattr(pandas, f"read_{kind}")("there") for kind in reading
    }
    return {
        **read,
        "pandas.ExcelFile": lambda: pandas.ExcelFile("there"),
        "pandas.DataFrame.to_parquet": lambda: frame.to_parquet("new"),
        "pandas.DataFrame.to_hdf": lambda: frame.to_hdf("new", key="a"),
        "pandas.HDFStore": lambda: pandas.HDFStore("new"),
        "pandas.read_sql": lambda: pandas.read_sql("select 1", database),
        "pandas.read_sql_query": lambda: pandas.read_sql_query("select 1", con=database),
        "pandas.DataFrame.to_sql": lambda: frame.to_sql("new", database),
    }


def of_polars(polars):
    frame = polars.DataFrame({"a": [1]})
    frame.write_csv("there.csv")
    before = polars.scan_csv("there.csv")
    names = (
        "read_csv read_parquet read_ipc read_ipc_stream read_json read_ndjson read_avro read_excel read_ods "
        "read_delta scan_csv scan_parquet scan_ipc scan_ndjson scan_delta scan_iceberg"
    )
    writing = ["csv", "parquet", "ipc", "ipc_stream", "json", "ndjson", "avro", "excel", "delta"]
    sinking = ["csv", "parquet", "ipc", "ndjson"]
    return {
        **{f"polars.{name}": lambda name=name: getattr(polars, name)("there") for name in names.split()},
        **{
            f"polars.DataFrame.write_{kind}": lambda kind=kind: getattr(frame, f"write_{kind}")("new")
            for kind in writing
        },
        **{
            f"polars.LazyFrame.sink_{kind}": lambda kind=kind: getattr(frame.lazy(), f"sink_{kind}")("new")
            for kind in sinking
        },
        "polars.read_database_uri": lambda: polars.read_database_uri("select 1", "postgresql://u@h/d"),
        "polars.LazyFrame.collect": lambda: before.collect(),
        "polars.LazyFrame.collect_async": lambda: before.collect_async(),
    }


def of_pyarrow(pyarrow):
    import pyarrow.csv
    import pyarrow.dataset
    import pyarrow.feather
    import pyarrow.flight
    import pyarrow.fs
    import pyarrow.json
    import pyarrow.orc
    from pyarrow import parquet

    Path("there").write_text("a\n1\n")
    table = pyarrow.table({"a": [1]})
    local = pyarrow.fs.LocalFileSystem()
    client = pyarrow.flight.connect(f"grpc://{NOWHERE}")
    ticket, described = pyarrow.flight.Ticket(b""), pyarrow.flight.FlightDescriptor.for_path("a")
    on_paths = [
        "open_output_stream",
        "open_append_stream",
        "create_dir",
        "delete_dir",
        "delete_dir_contents",
        "delete_file",
    ]
    return {
        "pyarrow.input_stream": lambda: pyarrow.input_stream("there"),
        "pyarrow.output_stream": lambda: pyarrow.output_stream("new"),
        "pyarrow.OSFile": lambda: pyarrow.OSFile("new", "wb"),
        "pyarrow.create_memory_map": lambda: pyarrow.create_memory_map("new", 10),
        "pyarrow.memory_map": lambda: pyarrow.memory_map("there"),
        "pyarrow.csv.read_csv": lambda: pyarrow.csv.read_csv("there"),
        "pyarrow.csv.open_csv": lambda: pyarrow.csv.open_csv("there"),
        "pyarrow.csv.write_csv": lambda: pyarrow.csv.write_csv(table, "new"),
        "pyarrow.json.read_json": lambda: pyarrow.json.read_json("there"),
        "pyarrow.json.open_json": lambda: pyarrow.json.open_json("there"),
        "pyarrow.feather.read_table": lambda: pyarrow.feather.read_table("there"),
        "pyarrow.feather.read_feather": lambda: pyarrow.feather.read_feather("there"),
        "pyarrow.feather.write_feather": lambda: pyarrow.feather.write_feather(table, "new"),
        "pyarrow.orc.read_table": lambda: pyarrow.orc.read_table("there"),
        "pyarrow.orc.ORCFile": lambda: pyarrow.orc.ORCFile("there"),
        "pyarrow.orc.write_table": lambda: pyarrow.orc.write_table(table, "new"),
        "pyarrow.orc.ORCWriter": lambda: pyarrow.orc.ORCWriter("new"),
        "pyarrow.parquet.read_table": lambda: parquet.read_table("there"),
        "pyarrow.parquet.read_schema": lambda: parquet.read_schema("there"),
        "pyarrow.parquet.read_metadata": lambda: parquet.read_metadata("there"),
        "pyarrow.parquet.ParquetFile": lambda: parquet.ParquetFile("there"),
        "pyarrow.parquet.ParquetDataset": lambda: parquet.ParquetDataset("there"),
        "pyarrow.parquet.write_table": lambda: parquet.write_table(table, "new"),
        "pyarrow.parquet.write_to_dataset": lambda: parquet.write_to_dataset(table, root_path="new"),
        "pyarrow.parquet.write_metadata": lambda: parquet.write_metadata(table.schema, "new"),
        "pyarrow.parquet.ParquetWriter": lambda: parquet.ParquetWriter("new", table.schema),
        "pyarrow.dataset.dataset": lambda: pyarrow.dataset.dataset("there", format="csv"),
        "pyarrow.dataset.parquet_dataset": lambda: pyarrow.dataset.parquet_dataset("there"),
        "pyarrow.dataset.write_dataset": lambda: pyarrow.dataset.write_dataset(
            table, "new", format="parquet"
        ),
        "pyarrow.fs.FileSystem.get_file_info": lambda: local.get_file_info("there"),
        "pyarrow.fs.FileSystem.open_input_file": lambda: local.open_input_file("there"),
        "pyarrow.fs.FileSystem.open_input_stream": lambda: local.open_input_stream("there"),
        **{
            f"pyarrow.fs.FileSystem.{name}": lambda name=name: getattr(local, name)("new")
            for name in on_paths
        },
        "pyarrow.fs.FileSystem.copy_file": lambda: local.copy_file("there", "new"),
        "pyarrow.fs.FileSystem.move": lambda: local.move("there", "new"),
        "pyarrow.fs.copy_files": lambda: pyarrow.fs.copy_files("there", "new"),
        "pyarrow.flight.FlightClient.do_get": lambda: client.do_get(ticket),
        "pyarrow.flight.FlightClient.do_put": lambda: client.do_put(described, table.schema),
        "pyarrow.flight.FlightClient.do_action": lambda: client.do_action("a"),
        "pyarrow.flight.FlightClient.do_exchange": lambda: client.do_exchange(described),
        "pyarrow.flight.FlightClient.get_flight_info": lambda: client.get_flight_info(described),
        "pyarrow.flight.FlightClient.get_schema": lambda: client.get_schema(described),
        "pyarrow.flight.FlightClient.list_flights": lambda: client.list_flights(),
        "pyarrow.flight.FlightClient.list_actions": lambda: client.list_actions(),
        "pyarrow.flight.FlightClient.authenticate": lambda: client.authenticate(None),
        "pyarrow.flight.FlightClient.wait_for_available": lambda: client.wait_for_available(0),
    }


def of_duckdb(duckdb):
    Path("there.csv").write_text("a\n1\n")
    memory = duckdb.connect()
    CLOSING.append(memory.close)
    relation = memory.sql("select 1 as a")
    text = "select * from 'there.csv'"
    running = ["execute", "executemany", "sql", "query", "from_query"]
    given = {"executemany": ([[1]],), "query": ()}
    reading = ["read_csv", "from_csv_auto", "read_json", "read_parquet", "from_parquet"]
    writing = ["write_csv", "to_csv", "write_parquet", "to_parquet"]
    of_memory = "DuckDBPyConnection"
    return {
        "duckdb.connect": lambda: duckdb.connect("new.duckdb"),
        **{
            f"duckdb.{name}": lambda name=name: getattr(duckdb, name)(text, *given.get(name, ()))
            for name in running
        },
        **{
            f"duckdb.{of_memory}.{name}": lambda name=name: getattr(memory, name)(text, *given.get(name, ()))
            for name in running
        },
        **{f"duckdb.{name}": lambda name=name: getattr(duckdb, name)("there.csv") for name in reading},
        **{
            f"duckdb.{of_memory}.{name}": lambda name=name: getattr(memory, name)("there.csv")
            for name in reading
        },
        **{
            f"duckdb.DuckDBPyRelation.{name}": lambda name=name: getattr(relation, name)("new")
            for name in writing
        },
    }


def of_lxml(lxml):
    import lxml.etree
    import lxml.html
    import lxml.objectify

    Path("there.xml").write_text("<a/>")
    tree = lxml.etree.ElementTree(lxml.etree.XML("<a/>"))
    return {
        "lxml.etree.parse": lambda: lxml.etree.parse("there.xml"),
        "lxml.etree.ElementTree.parse": lambda: tree.parse("there.xml"),
        "lxml.etree.ElementTree.write": lambda: tree.write("new.xml"),
        "lxml.etree.ElementTree.write_c14n": lambda: tree.write_c14n("new.xml"),
        "lxml.etree.xmlfile": lambda: lxml.etree.xmlfile("new.xml"),
        "lxml.html.parse": lambda: lxml.html.parse("there.xml"),
        "lxml.objectify.parse": lambda: lxml.objectify.parse("there.xml"),
    }


def of_h5py(h5py):
    return {"h5py.File": lambda: h5py.File("new.h5", "w")}


def of_netcdf(netcdf):
    return {"netCDF4.Dataset": lambda: netcdf.Dataset("new.nc", "w")}


def of_openpyxl(openpyxl):
    return {"openpyxl.load_workbook": lambda: openpyxl.load_workbook("there")}


def of_pillow(pillow):
    import PIL.Image

    return {"PIL.Image.open": lambda: PIL.Image.open("there")}


def of_opencv(cv2):
    import numpy as np

    picture = np.zeros((2, 2, 3), np.uint8)
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    film, camera = cv2.VideoWriter(), cv2.VideoCapture()
    return {
        "cv2.imread": lambda: cv2.imread("there"),
        "cv2.imreadmulti": lambda: cv2.imreadmulti("there"),
        "cv2.imcount": lambda: cv2.imcount("there"),
        "cv2.imwrite": lambda: cv2.imwrite("new.png", picture),
        "cv2.imwritemulti": lambda: cv2.imwritemulti("new.tiff", [picture]),
        "cv2.VideoCapture": lambda: cv2.VideoCapture("there"),
        "cv2.VideoCapture.open": lambda: camera.open("there"),
        "cv2.VideoWriter": lambda: cv2.VideoWriter("new.avi", codec, 1, (2, 2)),
        "cv2.VideoWriter.open": lambda: film.open("new.avi", codec, 1, (2, 2)),
    }


def of_lmdb(lmdb):
    before = lmdb.open("there.lmdb", lock=False)
    CLOSING.append(before.close)
    return {
        "lmdb.open": lambda: lmdb.open("new.lmdb"),
        "lmdb.Environment.begin": lambda: before.begin(),
    }


def of_apsw(apsw):
    before = apsw.Connection("there.apsw")
    CLOSING.append(before.close)
    cursor = before.cursor()
    return {
        "apsw.Connection": lambda: apsw.Connection("new.apsw"),
        "apsw.Connection.execute": lambda: before.execute("select 1"),
        "apsw.Connection.executemany": lambda: before.executemany("select ?", [(1,)]),
        "apsw.Cursor.execute": lambda: cursor.execute("select 1"),
        "apsw.Cursor.executemany": lambda: cursor.executemany("select ?", [(1,)]),
    }


def of_sqlalchemy(sqlalchemy):
    engine = sqlalchemy.create_engine("sqlite:///there.sqlite", poolclass=sqlalchemy.pool.StaticPool)
    CLOSING.append(engine.dispose)
    with engine.begin() as connection:
        connection.exec_driver_sql("create table t (a)")

    def run(statement, *values):
        with engine.connect() as connection:
            connection.exec_driver_sql(statement, *values)

    def without_values():
        with engine.connect() as connection:
            connection.execution_options(no_parameters=True).exec_driver_sql("select 1")

    of_dialect = "sqlalchemy.DefaultDialect"
    in_c = sqlalchemy.create_engine("mssql+pyodbc://h", module=sqlite3).dialect
    return {
        f"{of_dialect}.connect": lambda: in_c.connect("h"),
        f"{of_dialect}.do_execute": lambda: run("select 1"),
        f"{of_dialect}.do_executemany": lambda: run("insert into t values (?)", [(1,), (2,)]),
        f"{of_dialect}.do_execute_no_params": without_values,
    }


def of_psycopg(psycopg):
    connection = psycopg.Connection.__new__(psycopg.Connection)

    async def wait():
        await psycopg.AsyncConnection.wait(psycopg.AsyncConnection.__new__(psycopg.AsyncConnection), iter(()))

    return {
        "psycopg.connect": lambda: psycopg.connect("host=127.0.0.1 port=9 connect_timeout=1"),
        "psycopg.Connection.wait": lambda: psycopg.Connection.wait(connection, iter(())),
        "psycopg.AsyncConnection.wait": wait,
    }


def of_psycopg2(psycopg2):
    from psycopg2 import extensions

    cursor = extensions.cursor.__new__(extensions.cursor)
    connection = extensions.connection.__new__(extensions.connection)
    text = io.StringIO()
    return {
        "psycopg2.connect": lambda: psycopg2.connect("host=127.0.0.1 port=9 connect_timeout=1"),
        "psycopg2.cursor.execute": lambda: cursor.execute("select 1"),
        "psycopg2.cursor.executemany": lambda: cursor.executemany("select 1", []),
        "psycopg2.cursor.callproc": lambda: cursor.callproc("f"),
        "psycopg2.cursor.copy_from": lambda: cursor.copy_from(text, "t"),
        "psycopg2.cursor.copy_to": lambda: cursor.copy_to(text, "t"),
        "psycopg2.cursor.copy_expert": lambda: cursor.copy_expert("copy t to stdout", text),
        "psycopg2.connection.commit": lambda: connection.commit(),
    }


def of_asyncpg(asyncpg):
    connection = object.__new__(asyncpg.connection.Connection)
    connection._aborted = True  # so that it is closed

    async def connect():
        await asyncpg.connect(host="127.0.0.1", port=9, timeout=1)

    async def fetch():
        await connection._execute("select 1", (), 0, None)

    async def execute():
        await connection.execute("select 1")

    async def executemany():
        await connection.executemany("select $1", [(1,)])

    return {
        "asyncpg.connect": connect,
        "asyncpg.Connection": fetch,
        "asyncpg.Connection.execute": execute,
        "asyncpg.Connection.executemany": executemany,
    }


def of_oracledb(oracledb):
    cursor = object.__new__(oracledb.Cursor)
    return {
        "oracledb.connect": lambda: oracledb.connect(user="a", password="b", dsn=f"{NOWHERE}/x"),
        "oracledb.connect_async": lambda: oracledb.connect_async(user="a", password="b", dsn=f"{NOWHERE}/x"),
        "oracledb.Cursor.execute": lambda: cursor.execute("select 1"),
        "oracledb.Cursor.executemany": lambda: cursor.executemany("select 1", []),
    }


def of_pymongo(pymongo):
    client = pymongo.MongoClient(f"mongodb://{NOWHERE}", serverSelectionTimeoutMS=100, connect=False)
    CLOSING.append(client.close)
    return {"pymongo.Topology.select_servers": lambda: client.admin.command("ping")}


def of_grpc(grpc):
    import grpc.aio

    channel = grpc.insecure_channel(NOWHERE)
    single = grpc.insecure_channel(NOWHERE, options=[("SingleThreadedUnaryStream", 1)])
    CLOSING.extend([channel.close, single.close])

    def asynchronous(kind, request):
        async def call():
            async with grpc.aio.insecure_channel(NOWHERE) as unused:
                getattr(unused, kind)("/a/b")(request, timeout=0.1)

        return call

    return {
        "grpc.UnaryUnaryMultiCallable": lambda: channel.unary_unary("/a/b")(b"", timeout=0.1),
        "grpc.UnaryUnaryMultiCallable.future": lambda: channel.unary_unary("/a/b").future(b"", timeout=0.1),
        "grpc.UnaryStreamMultiCallable": lambda: channel.unary_stream("/a/b")(b"", timeout=0.1),
        "grpc.SingleThreadedUnaryStreamMultiCallable": lambda: single.unary_stream("/a/b")(b"", timeout=0.1),
        "grpc.StreamUnaryMultiCallable": lambda: channel.stream_unary("/a/b")(iter([b""]), timeout=0.1),
        "grpc.StreamUnaryMultiCallable.future": lambda: channel.stream_unary("/a/b").future(
            iter([b""]), timeout=0.1
        ),
        "grpc.StreamStreamMultiCallable": lambda: channel.stream_stream("/a/b")(iter([b""]), timeout=0.1),
        "grpc.aio.UnaryUnaryCall": asynchronous("unary_unary", b""),
        "grpc.aio.UnaryStreamCall": asynchronous("unary_stream", b""),
        "grpc.aio.StreamUnaryCall": asynchronous("stream_unary", iter([b""])),
        "grpc.aio.StreamStreamCall": asynchronous("stream_stream", iter([b""])),
    }


def of_curl_cffi(curl_cffi):
    async def get():
        async with curl_cffi.AsyncSession() as session:
            await session.get(f"http://{NOWHERE}/")

    return {
        "curl_cffi.Curl.perform": lambda: curl_cffi.get(f"http://{NOWHERE}/"),
        "curl_cffi.Curl.ws_send": lambda: curl_cffi.Curl().ws_send(b""),
        "curl_cffi.AsyncCurl.add_handle": get,
    }


def of_pycurl(pycurl):
    curl, many = pycurl.Curl(), pycurl.CurlMulti()
    CLOSING.extend([curl.close, many.close])
    curl.setopt(pycurl.URL, f"http://{NOWHERE}/")
    return {
        "pycurl.Curl.perform": lambda: curl.perform(),
        "pycurl.Curl.perform_rb": lambda: curl.perform_rb(),
        "pycurl.Curl.perform_rs": lambda: curl.perform_rs(),
        "pycurl.Curl.send": lambda: curl.send(b""),
        "pycurl.CurlMulti.perform": lambda: many.perform(),
        "pycurl.CurlMulti.socket_action": lambda: many.socket_action(pycurl.SOCKET_TIMEOUT, 0),
    }


def of_zmq(zmq):
    one = zmq.Context.instance().socket(zmq.PUSH)
    one.setsockopt(zmq.LINGER, 0)
    CLOSING.extend([one.close, zmq.Context.instance().term])
    return {
        "zmq.Socket.bind": lambda: one.bind("tcp://127.0.0.1:*"),
        "zmq.Socket.connect": lambda: one.connect(f"tcp://{NOWHERE}"),
        "zmq.Socket.send": lambda: one.send(b"", zmq.NOBLOCK),
    }


def of_uvloop(uvloop):
    loop = uvloop.new_event_loop()  # one that nobody runs: the calls are found before it is needed
    CLOSING.append(loop.close)

    def starts(name, *args):
        return lambda: getattr(loop, name)(*args).send(None)

    return {
        "uvloop.Loop.create_connection": starts("create_connection", None, "127.0.0.1", 9),
        "uvloop.Loop.create_unix_connection": starts("create_unix_connection", None, "there"),
        "uvloop.Loop.create_datagram_endpoint": starts("create_datagram_endpoint", None),
        "uvloop.Loop.create_server": starts("create_server", None, "127.0.0.1"),
        "uvloop.Loop.create_unix_server": starts("create_unix_server", None, "new"),
        "uvloop.Loop.sock_connect": starts("sock_connect", None, ("127.0.0.1", 9)),
        "uvloop.Loop.getaddrinfo": starts("getaddrinfo", "localhost", 9),
        "uvloop.Loop.getnameinfo": starts("getnameinfo", ("127.0.0.1", 9)),
        "uvloop.Loop.subprocess_exec": starts("subprocess_exec", None, "true"),
        "uvloop.Loop.subprocess_shell": starts("subprocess_shell", None, "true"),
    }


def of_adbc(adbc):
    from adbc_driver_manager import dbapi

    cursor = object.__new__(dbapi.Cursor)
    cursor._closed = True
    return {
        "adbc_driver_manager.dbapi.connect": lambda: dbapi.connect("nowhere"),
        "adbc_driver_manager.dbapi.Cursor.execute": lambda: cursor.execute("select 1"),
        "adbc_driver_manager.dbapi.Cursor.executemany": lambda: cursor.executemany("select ?", [(1,)]),
    }


def of_primp(primp):
    at, client, other = f"http://{NOWHERE}/", primp.Client(), primp.AsyncClient()
    methods = ["get", "head", "options", "delete", "post", "put", "patch"]
    found = {}
    for owner, one in (("primp", primp), ("primp.Client", client), ("primp.AsyncClient", other)):
        for method in methods:
            found[f"{owner}.{method}"] = lambda one=one, method=method: getattr(one, method)(at)
        found[f"{owner}.request"] = lambda one=one: one.request("GET", at)
    return found


def of_kafka(kafka):
    producer = kafka.Producer({"bootstrap.servers": NOWHERE, "log_level": 0})
    consumer = kafka.Consumer({"bootstrap.servers": NOWHERE, "group.id": "a", "log_level": 0})
    CLOSING.append(consumer.close)
    return {
        "confluent_kafka.Producer.produce": lambda: producer.produce("a", b""),
        "confluent_kafka.Producer.poll": lambda: producer.poll(0),
        "confluent_kafka.Producer.flush": lambda: producer.flush(0.1),
        "confluent_kafka.Consumer.subscribe": lambda: consumer.subscribe(["a"]),
        "confluent_kafka.Consumer.poll": lambda: consumer.poll(0),
        "confluent_kafka.Consumer.consume": lambda: consumer.consume(1, 0.1),
        "confluent_kafka.Consumer.commit": lambda: consumer.commit(),
    }


def of_obstore(obstore):
    import obstore.store

    local = obstore.store.LocalStore(str(Path.cwd()))
    with_path = ["get", "head", "put", "delete", "open_reader", "open_writer"]
    given = {"get_range": ("there", 0, 1), "get_ranges": ("there", [0], [1]), "put": ("new", b"x")}
    found = {"obstore.list": lambda: obstore.list(local)}
    for name in (*with_path, "get_range", "get_ranges", "list_with_delimiter", "copy", "rename"):
        args = given.get(name, ("there",) if name in with_path else ("there", "new"))
        for each in (name, f"{name}_async"):
            found[f"obstore.{each}"] = lambda each=each, args=args: getattr(obstore, each)(local, *args)
    found["obstore.list_with_delimiter"] = lambda: obstore.list_with_delimiter(local)
    found["obstore.list_with_delimiter_async"] = lambda: obstore.list_with_delimiter_async(local)
    return found


def of_tables(tables):
    return {
        "tables.open_file": lambda: tables.open_file("new.h5", "w"),
        "tables.File": lambda: tables.File("new.h5", "w"),
    }


def of_deltalake(deltalake):
    table = object.__new__(deltalake.DeltaTable)
    return {
        "deltalake.DeltaTable": lambda: deltalake.DeltaTable("there"),
        "deltalake.write_deltalake": lambda: deltalake.write_deltalake("new", {}),
        "deltalake.DeltaTable.create": lambda: deltalake.DeltaTable.create("new", None),
        "deltalake.DeltaTable.update": lambda: table.update({}),
        "deltalake.DeltaTable.merge": lambda: table.merge(None, "", ""),
        "deltalake.DeltaTable.delete": lambda: table.delete(),
        "deltalake.DeltaTable.vacuum": lambda: table.vacuum(),
        "deltalake.DeltaTable.restore": lambda: table.restore(0),
    }


def of_rasterio(rasterio):
    return {"rasterio.open": lambda: rasterio.open("there")}


def of_pyogrio(pyogrio):
    reading = ["read_dataframe", "read_arrow", "read_info", "read_bounds", "list_layers"]
    return {
        **{f"pyogrio.{name}": lambda name=name: getattr(pyogrio, name)("there") for name in reading},
        "pyogrio.write_dataframe": lambda: pyogrio.write_dataframe(None, "new"),
        "pyogrio.write_arrow": lambda: pyogrio.write_arrow(None, "new"),
    }


def of_soundfile(soundfile):
    return {
        "soundfile.read": lambda: soundfile.read("there"),
        "soundfile.blocks": lambda: next(soundfile.blocks("there", 1)),
        "soundfile.info": lambda: soundfile.info("there"),
        "soundfile.write": lambda: soundfile.write("new.wav", [0.0], 8000),
        "soundfile.SoundFile": lambda: soundfile.SoundFile("there"),
    }


def of_safetensors(safetensors):
    import safetensors.numpy

    return {
        "safetensors.safe_open": lambda: safetensors.safe_open("there", "np"),
        "safetensors.numpy.load_file": lambda: safetensors.numpy.load_file("there"),
        "safetensors.numpy.save_file": lambda: safetensors.numpy.save_file({}, "new"),
    }


LIBRARIES = {
    "adbc-driver-manager": ("adbc_driver_manager", of_adbc),
    "primp": ("primp", of_primp),
    "confluent-kafka": ("confluent_kafka", of_kafka),
    "obstore": ("obstore", of_obstore),
    "tables": ("tables", of_tables),
    "deltalake": ("deltalake", of_deltalake),
    "rasterio": ("rasterio", of_rasterio),
    "pyogrio": ("pyogrio", of_pyogrio),
    "soundfile": ("soundfile", of_soundfile),
    "safetensors": ("safetensors", of_safetensors),
    "psycopg": ("psycopg", of_psycopg),
    "psycopg2": ("psycopg2", of_psycopg2),
    "asyncpg": ("asyncpg", of_asyncpg),
    "oracledb": ("oracledb", of_oracledb),
    "pymongo": ("pymongo", of_pymongo),
    "duckdb": ("duckdb", of_duckdb),
    "lmdb": ("lmdb", of_lmdb),
    "apsw": ("apsw", of_apsw),
    "sqlalchemy": ("sqlalchemy", of_sqlalchemy),
    "grpcio": ("grpc", of_grpc),
    "curl_cffi": ("curl_cffi", of_curl_cffi),
    "pycurl": ("pycurl", of_pycurl),
    "pyzmq": ("zmq", of_zmq),
    "uvloop": ("uvloop", of_uvloop),
    "numpy": ("numpy", of_numpy),
    "pandas": ("pandas", of_pandas),
    "polars": ("polars", of_polars),
    "pyarrow": ("pyarrow", of_pyarrow),
    "h5py": ("h5py", of_h5py),
    "netCDF4": ("netCDF4", of_netcdf),
    "openpyxl": ("openpyxl", of_openpyxl),
    "lxml": ("lxml", of_lxml),
    "pillow": ("PIL", of_pillow),
    "opencv-python": ("cv2", of_opencv),
}
"""By the distribution: the module to import, and the function that makes its calls by entry point."""
