// An OPC UA server that was not written here, for nodeopcua_test.go: node-opcua
// with the nodes of conformance_test.go that it can have. Its arguments are the
// port and a folder for its certificates.
const { OPCUAServer } = require("node-opcua-server");
const { OPCUACertificateManager } = require("node-opcua-certificate-manager");

const [port, folder] = process.argv.slice(2);

(async () => {
  const certificates = new OPCUACertificateManager({ automaticallyAcceptUnknownCertificate: true, rootFolder: folder });
  await certificates.initialize();
  const server = new OPCUAServer({
    port: Number(port),
    hostname: "127.0.0.1",
    serverCertificateManager: certificates,
    userCertificateManager: certificates,
    userManager: { isValidUser: (name, password) => name === "operator" && password === "s3cret" },
  });
  await server.initialize();
  const space = server.engine.addressSpace;
  const own = space.getOwnNamespace(); // ns=1
  const device = own.addObject({ organizedBy: space.rootFolder.objects, browseName: "Device" });
  const add = (name, dataType, value, array) =>
    own.addVariable({
      componentOf: device, browseName: name, nodeId: "s=" + name, dataType, valueRank: array ? 1 : -1, minimumSamplingInterval: 50,
      value: array ? { dataType, arrayType: 1, value } : { dataType, arrayType: 0, value },
    });
  const count = add("count", "UInt32", 0);
  let n = 0;
  setInterval(() => count.setValueFromSource({ dataType: "UInt32", value: ++n }), 20);
  add("still", "Int32", 7);
  add("setpoint", "Float", 45.5);
  add("running", "Boolean", true);
  add("serial", "String", "WB-20");
  add("uint64", "UInt64", [0xffffffff, 0xffffffff]);
  add("blob", "ByteString", Buffer.from([1, 2, 3]));
  add("made", "DateTime", new Date("2026-01-02T03:04:05.500Z"));
  add("label", "LocalizedText", { text: "Kessel" });
  add("profile", "Int16", Int16Array.from([1, -2, 3]), true);
  add("bits", "UInt64", [[0xffffffff, 0xffffffff], [0, 1]], true);
  add("raw", "Byte", Uint8Array.from([1, 2]), true);
  own.addVariable({
    componentOf: device, browseName: "matrix", nodeId: "s=matrix", dataType: "Int16", valueRank: 2, arrayDimensions: [2, 3],
    value: { dataType: "Int16", arrayType: 2, dimensions: [2, 3], value: Int16Array.from([1, 2, 3, 4, 5, 6]) },
  });
  await server.start();
  console.log("ready");
  process.on("SIGTERM", async () => {
    await server.shutdown(0);
    process.exit(0);
  });
})().catch((e) => {
  console.error(e);
  process.exit(1);
});
