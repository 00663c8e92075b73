//! A database for the script datastore, beside a platform: a member is a folder, a copy of a shard is a file in it, a
//! move is `cp` and `rm` by a process in the background that takes a moment. A double: it says what a database would say.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::script;

/// Six shards of one collection.
pub const SHARDS: usize = 6;

pub struct Database {
    pub dir: PathBuf,
}

/// Reads the fields of its input; names that are no names are refused.
const HEAD: &str = r#"#!/bin/sh
input=$(cat)
field() { printf '%s' "$input" | sed -n "s/.*\"$1\":\"\([A-Za-z0-9._-]*\)\".*/\1/p"; }
node=$(field node) from=$(field from) to=$(field to)
name=$(field collection).$(printf '%s' "$input" | sed -n 's/.*"shard":\([0-9]*\).*/\1/p')
echo "asked ${0##*/} $node$name $from $to $VECSCALE_KEY" >> "$DIR/asked"
"#;

const INVENTORY: &str = r#"#!/bin/sh
input=$(cat)
via=$(printf '%s' "$input" | sed -n 's/.*"via":"\([^"]*\)".*/\1/p')
# Who is dead, or no member, does not answer for itself.
if [ -n "$via" ]; then
  [ -d "$DIR/db/$via" ] && [ ! -e "$DIR/dead/$via" ] || { echo "$via does not answer" >&2; exit 1; }
fi
# What is under way is looked at first: should it end meanwhile, it is shown too long rather than never.
transfers=; comma=
for path in "$DIR"/transfers/*; do
  read -r from to 2>/dev/null < "$path" || continue
  transfers="$transfers$comma{\"collection\":\"docs\",\"shard\":${path##*.},\"from\":\"$from\",\"to\":\"$to\"}"; comma=,
done
members=; shards=; comma=; shards_comma=
for folder in "$DIR"/db/*; do
  node=${folder##*/}
  [ -e "$DIR/dead/$node" ] && healthy=false || healthy=true
  [ -e "$DIR/cordoned/$node" ] && cordoned=true || cordoned=false
  members="$members$comma{\"id\":\"$node\",\"address\":\"http://127.0.0.1:$PORT\",\"healthy\":$healthy,\"cordoned\":$cordoned}"
  comma=,
  for path in "$folder"/docs.?; do
    bytes=$(wc -c 2>/dev/null < "$path") || continue
    shards="$shards$shards_comma{\"collection\":\"docs\",\"shard\":${path##*.},\"node\":\"$node\",\"bytes\":$bytes,\"vectors\":$bytes,\"state\":\"active\"}"
    shards_comma=,
  done
done
printf '{"members":[%s],"wanted_replicas":2,"shards":[%s],"transfers":[%s]}' "$members" "$shards" "$transfers"
"#;

/// `AT_END` is what becomes of the source.
const COPY: &str = r#"source=$DIR/db/$from/$name target=$DIR/db/$to/$name flight=$DIR/transfers/$name
[ -e "$flight" ] && exit 10
[ -e "$target" ] && exit 10
[ -e "$source" ] && [ -d "$DIR/db/$to" ] || { echo "there is no $name on $from, or no $to" >&2; exit 20; }
echo "$from $to" > "$flight"
( sleep 0.2; cp "$source" "$target.part"; [ -e "$flight" ] && mv "$target.part" "$target" && AT_END; rm -f "$flight" "$target.part" ) \
  < /dev/null > /dev/null 2>&1 &
exit 0
"#;

impl Database {
    /// Two copies of every shard, on the first members in turn.
    pub fn new(dir: &Path, members: &[&str]) -> Database {
        let database = Database { dir: dir.to_path_buf() };
        for folder in ["db", "transfers", "cordoned", "dead"] {
            fs::create_dir_all(dir.join(folder)).expect("a folder");
        }
        for member in members {
            fs::create_dir_all(dir.join("db").join(member)).expect("a member");
        }
        let mut random = fastrand::Rng::with_seed(7);
        for shard in 0..SHARDS {
            let content: String = (0..random.usize(2000..3000)).map(|_| random.alphanumeric()).collect();
            for copy in [shard, shard + 1] {
                let member = members[copy % members.len()];
                fs::write(dir.join(format!("db/{member}/docs.{shard}")), &content).expect("a shard");
            }
        }
        database.write("inventory", INVENTORY);
        database.change("move", &COPY.replace("AT_END", "rm \"$source\""));
        database.change("replicate", &COPY.replace("AT_END", ":"));
        database.change("cancel", r#"rm "$DIR/transfers/$name" 2>/dev/null || exit 10"#);
        database.change("cordon", r#"[ -d "$DIR/db/$node" ] || exit 20; touch "$DIR/cordoned/$node""#);
        database.change("uncordon", r#"rm -f "$DIR/cordoned/$node""#);
        database.change(
            "forget",
            r#"[ -d "$DIR/db/$node" ] || exit 10
[ -e "$DIR/dead/$node" ] && rm -r "$DIR/db/$node" && exit 0
rmdir "$DIR/db/$node" 2>/dev/null || { echo "$node still holds shards" >&2; exit 20; }
rm -f "$DIR/cordoned/$node""#,
        );
        // A node that the platform makes joins by itself.
        script(
            &dir.join("create-member"),
            "#!/bin/sh\n\"$DIR/create\"; code=$?\ncase $code in 0|10) mkdir -p \"$DIR/db/$VECSCALE_NODE\";; esac\nexit $code\n",
        );
        database
    }

    /// Another script in the place of one, in one go: it may be started at any moment.
    pub fn write(&self, name: &str, text: &str) {
        let fresh = self.dir.join(format!("{name}.new"));
        script(&fresh, text);
        fs::rename(fresh, self.dir.join(name)).expect("the script in its place");
    }

    /// One that knows `$node`, or `$name`, `$from` and `$to`.
    pub fn change(&self, name: &str, body: &str) {
        self.write(name, &format!("{HEAD}{body}\n"));
    }

    /// A platform's configuration with this database in the place of none.
    pub fn config(&self, of_platform: &str) -> String {
        let dir = self.dir.display();
        let port = of_platform.split("PORT: \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a port");
        let scripts = ["inventory", "move", "replicate", "cancel", "cordon", "uncordon", "forget"]
            .map(|name| format!("{name}: [\"{dir}/{name}\"]"))
            .join(", ");
        let store = format!("datastore: {{type: script, {scripts}, env: {{DIR: \"{dir}\", PORT: \"{port}\"}}}}");
        of_platform
            .replace("datastore: {type: none}", &store)
            .replace(&format!("create: [\"{dir}/create\"]"), &format!("create: [\"{dir}/create-member\"]"))
    }

    /// Every shard with its distinct contents, and the members that have a copy.
    pub fn shards(&self) -> BTreeMap<String, (Vec<String>, Vec<String>)> {
        let mut shards: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
        for member in self.members() {
            for file in fs::read_dir(self.dir.join("db").join(&member)).expect("a member").flatten() {
                let (contents, members) = shards.entry(file.file_name().to_string_lossy().into_owned()).or_default();
                contents.push(fs::read_to_string(file.path()).expect("a shard"));
                contents.sort();
                contents.dedup();
                members.push(member.clone());
            }
        }
        shards
    }

    /// What must be the same before and after: the shards, their contents, and how many copies there are.
    pub fn sum(&self) -> BTreeMap<String, (Vec<String>, usize)> {
        self.shards().into_iter().map(|(name, (contents, members))| (name, (contents, members.len()))).collect()
    }

    pub fn members(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.join("db")).expect("the members").flatten();
        let mut members: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        members.sort();
        members
    }

    pub fn asked(&self, script: &str) -> usize {
        let asked = fs::read_to_string(self.dir.join("asked")).unwrap_or_default();
        asked.lines().filter(|line| line.starts_with(&format!("asked {script} "))).count()
    }
}
