use super::*;

fn pair() -> ((Mux, mpsc::UnboundedReceiver<Group>), (Mux, mpsc::UnboundedReceiver<Group>)) {
    let (one, other) = tokio::io::duplex(1 << 16);
    let ((from, to), (there, back)) = (tokio::io::split(one), tokio::io::split(other));
    (Mux::start(from, to, BytesMut::new()), Mux::start(there, back, BytesMut::new()))
}

#[tokio::test]
async fn a_lane_that_nobody_reads_holds_up_no_other() {
    let ((near, _none), (_far, mut groups)) = pair();
    let mut slow = near.open(1, 0);
    let mut quick = near.open(1, 1);
    let mut there = groups.recv().await.unwrap();
    let full = tokio::time::timeout(Duration::from_millis(50), async {
        loop {
            there.writers[0].write_all(&[7; 4096]).await.unwrap();
        }
    });
    assert!(full.await.is_err());
    let mut other = groups.recv().await.unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
    let (sent, mut got) = (bytes.clone(), Vec::new());
    tokio::spawn(async move { quick.writers[0].write_all(&sent).await });
    tokio::spawn(async move {
        let mut all = Vec::new();
        other.readers[0].read_to_end(&mut all).await.unwrap();
        other.writers[0].write_all(&all).await.unwrap();
    });
    quick.readers[0].read_to_end(&mut got).await.unwrap();
    assert!(got == bytes);
    // It has waited as long as it had to.
    let mut some = vec![0; 512 << 10];
    let read = async { slow.readers[0].read_exact(&mut some).await.map(drop) };
    let write = async { there.writers[0].write_all(&vec![7; 300 << 10]).await };
    tokio::try_join!(read, write).unwrap();
    assert!(some.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn ends_are_told() {
    let ((near, _none), (_far, mut groups)) = pair();
    let mut group = near.open(1, 1);
    let mut there = groups.recv().await.unwrap();
    group.to.send(b"hello").await.unwrap();
    let mut word = [0; 5];
    there.from.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"hello");
    // Nobody reads here: writing there fails.
    group.readers.clear();
    let failed = async {
        while there.writers[0].write_all(b"more").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), failed).await.unwrap();
    drop(group);
    assert_eq!(there.from.read(&mut word).await.unwrap(), 0);
    assert_eq!(there.readers[0].read(&mut word).await.unwrap(), 0);
    drop(there);
    assert!(near.shared.table().lanes.is_empty());
}

#[tokio::test]
async fn without_the_other_end_all_is_over() {
    let (one, other) = tokio::io::duplex(1 << 16);
    let (from, to) = tokio::io::split(one);
    let (near, mut groups) = Mux::start(from, to, BytesMut::new());
    let mut group = near.open(1, 1);
    drop(other);
    let mut word = [0; 5];
    assert_eq!(group.readers[0].read(&mut word).await.unwrap(), 0);
    assert!(group.writers[0].write_all(b"more").await.is_err());
    assert!(groups.recv().await.is_none());
    assert!(near.is_over());
    let mut late = near.open(1, 0);
    assert_eq!(late.readers[0].read(&mut word).await.unwrap(), 0);
}

#[tokio::test]
async fn who_speaks_of_what_was_never_opened_is_not_heard() {
    let (one, mut other) = tokio::io::duplex(1 << 20);
    let (from, to) = tokio::io::split(one);
    let (near, _groups) = Mux::start(from, to, BytesMut::new());
    drop(near.open(1, 0));
    let group = near.open(0, 1);
    let mut bytes = BytesMut::new();
    Frame::Data { lane: 1, bytes: bytes::Bytes::from_static(b"late") }.put(&mut bytes);
    Frame::Data { lane: 2, bytes: bytes::Bytes::from_static(b"word") }.put(&mut bytes);
    other.write_all(&bytes).await.unwrap();
    let (mut from, mut word) = (group.from, [0; 4]);
    from.read_exact(&mut word).await.unwrap();
    assert!(&word == b"word" && !near.is_over());
    bytes.clear();
    Frame::Data { lane: 4, bytes: bytes::Bytes::from_static(b"what") }.put(&mut bytes);
    other.write_all(&bytes).await.unwrap();
    assert_eq!(from.read(&mut word).await.unwrap(), 0);
}

#[tokio::test]
async fn who_takes_more_than_is_given_is_not_heard() {
    let (one, mut other) = tokio::io::duplex(1 << 20);
    let (from, to) = tokio::io::split(one);
    let (near, _groups) = Mux::start(from, to, BytesMut::new());
    let _group = near.open(1, 0);
    let mut bytes = BytesMut::new();
    for _ in 0..9 {
        Frame::Data { lane: 1, bytes: vec![0; 32 << 10].into() }.put(&mut bytes);
    }
    other.write_all(&bytes).await.unwrap();
    let over = async {
        while !near.is_over() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), over).await.unwrap();
}
