//! What each link costs of what a process may have.

use super::*;

/// Cables beside the first.
const MORE: usize = 4;

isolated! {
    fn a_link_takes_two_descriptors_for_each_family_and_gives_them_back() {
        let mut lan = Lan::new();
        let a = lan.host();
        a.within(|| {
            for cable in 1..=MORE {
                let command = format!(
                    "ip link add eth{cable} type veth peer name far{cable} && \
                     echo 0 > /proc/sys/net/ipv6/conf/eth{cable}/accept_dad && \
                     ip addr add 198.18.{cable}.1/24 dev eth{cable} && \
                     ip link set eth{cable} up && ip link set far{cable} up"
                );
                assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
            }
        });
        // A router of either family on each of so many cables.
        let config = |cables: usize| {
            let names: Vec<String> =
                (0..cables).flat_map(|n| [format!("\"four{n}\""), format!("\"six{n}\"")]).collect();
            let mut text = format!("[node.gw1]\nvrids = [{}]\n", names.join(", "));
            for n in 0..cables {
                for (name, vip) in [("four", "198.19.0.1"), ("six", "fe80::51")] {
                    text += &format!(
                        "[virtual_router.{name}{n}]\nvrid = 51\ninterface = \"eth{n}\"\n\
                         vips = [\"{vip}\"]\nadvert_interval = 0.1\n"
                    );
                }
            }
            a.config(&text)
        };
        let daemon = a.daemon_of(&config(1));
        let active = || {
            let status = daemon.status();
            let routers = status["vrrp"]["routers"].as_array().unwrap();
            routers.iter().filter(|router| router["state"] == "active").count()
        };
        let descriptors = || {
            // Answers of the control socket are on their way at times.
            let folder = format!("/proc/{}/fd", daemon.pid());
            (0..20).map(|_| std::fs::read_dir(&folder).unwrap().count()).min().unwrap()
        };
        wait("both are active", || active() == 2);
        let before = descriptors();
        daemon.reload(&config(1 + MORE));
        wait("all are active", || active() == 2 + 2 * MORE);
        let most = before + 2 * 2 * MORE;
        wait("it takes no more", || descriptors() <= most);
        daemon.reload(&config(1));
        wait("it gives them back", || active() == 2 && descriptors() <= before);
    }
}
